"""The codec as a stage. Its arithmetic is proven in tests/parity/test_parity_movq.py."""

import pytest
import torch

from unclip.codec.blocks import SpatialNorm
from unclip.codec.codec import Codec, CodecConfig
from unclip.codec.network import MoVQConfig
from unclip.config import Config
from unclip.errors import ImageError, OptionError, TrainingError
from unclip.randomness import Randomness
from unclip.types import Batch, Stage

SMALL = CodecConfig(network=MoVQConfig(widths=(32, 32), codes=8, depth=1, attention=(2,), groups=8))


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(SMALL).eval()


def test_it_is_a_stage_that_cannot_be_trained(codec: Codec) -> None:
    assert isinstance(codec, Stage)
    with pytest.raises(TrainingError, match="import one"):
        codec(Batch(keys=("a",), images=torch.zeros(1, 3, 8, 8)), Randomness([0]))


def test_sampling_is_one_step_and_not_square(codec: Codec) -> None:
    sampling = codec.sample(torch.randn(2, 4, 3, 5))
    step = next(sampling)
    assert (step.stage, step.index, step.total) == ("codec", 0, 1)
    assert step.sample.shape == (2, 3, 6, 10)
    with pytest.raises(StopIteration) as stop:
        next(sampling)
    assert torch.equal(stop.value.value, step.sample)
    assert not step.sample.requires_grad


def test_each_image_is_decoded_for_itself(codec: Codec) -> None:
    latents = torch.randn(2, 4, 4, 4)
    both = next(codec.sample(latents)).sample
    torch.testing.assert_close(both[1:], next(codec.sample(latents[1:])).sample)


def test_images_that_do_not_fit_are_refused(codec: Codec) -> None:
    assert codec.encode(torch.zeros(1, 3, 6, 4)).shape == (1, 4, 3, 2)
    with pytest.raises(ImageError, match="5×6"):
        codec.encode(torch.zeros(1, 3, 6, 5))


def test_a_spatial_norm_reads_the_code_where_it_is() -> None:
    norm = SpatialNorm(groups=2, channels=4, code=1)
    torch.nn.init.zeros_(norm.scale.weight)
    torch.nn.init.zeros_(norm.scale.bias)
    torch.nn.init.ones_(norm.shift.weight)
    torch.nn.init.zeros_(norm.shift.bias)
    code = torch.arange(4.0).reshape(1, 1, 2, 2)
    shifted = norm(torch.randn(1, 4, 4, 4), code)
    expected = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3.0]])
    assert torch.equal(shifted, expected.expand(1, 4, 4, 4))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"widths": (32, 48)}, "32 groups"), ({"attention": (16,)}, "attention at")],
)
def test_impossible_shapes(change: dict, complaint: str) -> None:
    with pytest.raises(OptionError, match=complaint):
        MoVQConfig.parse(change, source="test")
    assert issubclass(MoVQConfig, Config)
