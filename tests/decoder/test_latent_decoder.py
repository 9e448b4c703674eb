"""What a decoder of latents adds: channels, sizes, norms, a stored embedding of nothing."""

import pytest
import torch

from unclip.decoder.conditioning import ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError, TrainingError
from unclip.nn.unet import UNetConfig
from unclip.randomness import Randomness
from unclip.types import Batch, finish

UNET = UNetConfig(
    in_channels=4,
    out_channels=8,
    channels=16,
    multipliers=(1, 2),
    depth=1,
    attention=(2,),
    context_width=12,
    head_channels=8,
    groups=4,
)
FEW = SamplingOptions(steps=2, guidance=3.0)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    image = ImageEmbeddingConfig(tokens=3, scale=2.0, null="stored", norm=True)
    network = DecoderNetworkConfig(unet=UNET, embedding=6, image=image, text=NoTextConfig())
    stage = Decoder(DecoderConfig(size=8, network=network)).eval()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return stage


def test_latents_of_any_size(decoder: Decoder) -> None:
    decoder.network.image.stored.embedding.normal_()
    z = torch.randn(2, 6)
    assert finish(decoder.sample(z, None, FEW, Randomness([1, 2]))).shape == (2, 4, 8, 8)
    wide = finish(decoder.sample(z, None, FEW, Randomness([1, 2]), size=(4, 12)))
    assert wide.shape == (2, 4, 4, 12)
    with pytest.raises(OptionError, match="12×5"):
        next(decoder.sample(z, None, FEW, Randomness([1, 2]), size=(5, 12)))


def test_the_stored_embedding_stands_in(decoder: Decoder) -> None:
    nothing = torch.randn(6)
    decoder.network.image.stored.embedding.copy_(nothing)
    here = torch.zeros(1, dtype=torch.bool)
    given = decoder.network.condition(nothing[None], None, here, here)
    dropped = decoder.network.condition(torch.randn(1, 6), None, ~here, here)
    absent = decoder.network.condition(None, None, here, here)
    for condition in (dropped, absent):
        torch.testing.assert_close(condition.embedding, given.embedding)
        torch.testing.assert_close(condition.context.keys_values, given.context.keys_values)


def test_what_was_never_stored_is_missed(decoder: Decoder) -> None:
    with pytest.raises(CheckpointError, match="empty image"):
        next(decoder.sample(torch.randn(1, 6), None, FEW, Randomness([1])))
    unguided = FEW.updated({"guidance": 1.0})
    next(decoder.sample(torch.randn(1, 6), None, unguided, Randomness([1])))


def test_both_projections_are_normalised(decoder: Decoder) -> None:
    image = decoder.network.image
    for norm in (image.norm_time, image.norm_tokens):
        torch.nn.init.ones_(norm.weight)
        torch.nn.init.zeros_(norm.bias)
    guide = image(torch.randn(2, 6), torch.zeros(2, dtype=torch.bool))
    for values in (guide.embedding, guide.tokens):
        torch.testing.assert_close(
            values.mean(-1), torch.zeros_like(values[..., 0]), atol=1e-5, rtol=0
        )
        torch.testing.assert_close(
            values.var(-1, unbiased=False), torch.ones_like(values[..., 0]), atol=1e-2, rtol=0
        )


def test_it_is_not_trained_on_pixels(decoder: Decoder) -> None:
    batch = Batch(keys=("a",), images=torch.zeros(1, 3, 8, 8), image_embedding=torch.zeros(1, 6))
    with pytest.raises(TrainingError, match="latents of 4 channels"):
        decoder(batch, Randomness([0]))
