import pytest
import torch
from torch.nn.functional import interpolate

from unclip.clip.clip import Clip
from unclip.clip.thumbnail import Thumbnail
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.types import Batch

IMAGES = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
Z = torch.nn.functional.normalize(torch.randn(6, 10, generator=torch.Generator().manual_seed(1)))


def constant(side: int, picture: torch.Tensor) -> Thumbnail:
    """A head that draws one picture whatever z_i is."""
    head = Thumbnail(10, side)
    torch.nn.init.zeros_(head.layers[2].weight)
    head.layers[2].bias.data = picture.flatten()
    return head


def test_the_mean_picture_explains_no_variance_of_colours_nor_of_shapes():
    small = interpolate(IMAGES, size=4, mode="area")
    loss = constant(4, small.mean(dim=0)).loss(Z, IMAGES)
    assert loss.item() == pytest.approx(2.0, abs=1e-5)


def test_the_right_picture_has_no_loss():
    one = IMAGES[:1].expand(6, -1, -1, -1).clone()
    one[3:] = IMAGES[1]
    small = interpolate(one, size=4, mode="area")
    half = constant(4, small[0]).loss(Z, one)
    # Half of the pictures are right, and the others off by twice the deviation from the mean.
    assert half.item() == pytest.approx(4.0, abs=1e-4)
    head = Thumbnail(10, 4)
    head.forward = lambda z: small
    assert head.loss(Z, one).item() == pytest.approx(0.0, abs=1e-6)


def test_colours_count_apart_from_shapes():
    flat = torch.linspace(-1, 1, 6).reshape(6, 1, 1, 1).expand(6, 3, 12, 12)
    # No shapes at all: an unexplained share of nothing is nothing, not NaN.
    loss = constant(4, torch.zeros(3, 4, 4)).loss(Z, flat)
    assert loss.item() == pytest.approx(1.0, abs=1e-5)


def test_clip_trains_its_image_tower_by_both_losses():
    tiny = preset("tiny").clip
    config = tiny.model_copy(update={"thumbnail": 4, "thumbnail_weight": 3.0})
    torch.manual_seed(0)
    clip = Clip.from_config(config)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    batch = Batch(keys=tuple("abcd"), images=images, captions=("one", "two", "three", "four"))
    losses = clip(batch, Randomness([1, 2, 3, 4]))
    total = losses["contrast"] + 3 * losses["thumbnail"]
    assert losses["loss"].item() == pytest.approx(total.item(), rel=1e-6)
    losses["loss"].backward()
    assert clip.network.thumbnail.layers[0].weight.grad.abs().sum() > 0


def test_a_clip_without_its_head_is_one_that_never_had_it():
    tiny = preset("tiny").clip
    clip = Clip.from_config(tiny.model_copy(update={"thumbnail": 4}))
    assert [name for name in clip.state_dict() if "thumbnail" in name]
    clip.drop_thumbnail()
    plain = Clip.from_config(tiny)
    assert clip.config == plain.config
    plain.load_state_dict(clip.state_dict())
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(clip.encode_image(images), plain.encode_image(images))
