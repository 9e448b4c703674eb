"""Low-res conditioning: the resize filter, alignment of both grids, blur and its coin."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage
from torch.nn import functional

from unclip.randomness import Randomness
from unclip.upsampler.bsr import Bsr
from unclip.upsampler.degradation import (
    Blur,
    Corruption,
    NoCorruption,
    degrade,
    gaussian_blur,
)
from unclip.upsampler.resize import enlarge, shrink


def smooth_image(size: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    return torch.stack([torch.sin(5 * x + 1), torch.cos(4 * y), torch.sin(3 * x * y + 2)])[None]


def test_low_and_high_are_aligned():
    high = smooth_image(64)
    low = degrade(high, 4, NoCorruption(), Randomness([0]))
    box = functional.avg_pool2d(high, 4)
    inner = (..., slice(2, -2), slice(2, -2))
    assert (low - box)[inner].abs().max() < 0.01
    # The comparison would notice a shift of one high-res pixel.
    assert (low - functional.avg_pool2d(high.roll(1, -1), 4))[inner].abs().max() > 0.03
    back = enlarge(low, 4)
    assert back.shape == high.shape
    assert (back - high)[..., 8:-8, 8:-8].abs().max() < 0.01


@pytest.mark.parametrize("factor", [2, 4])
def test_crop_then_shrink_equals_shrink_then_crop(factor):
    high = torch.rand(1, 3, 64, 64) * 2 - 1
    whole = shrink(high, factor)
    crop = shrink(high[..., 16:48, 8:40], factor)
    rows, columns = slice(16 // factor, 48 // factor), slice(8 // factor, 40 // factor)
    margin = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(
        crop[margin], whole[..., rows, columns][margin], atol=1e-6, rtol=1e-5
    )


def test_resizing_keeps_constants_and_range():
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(enlarge(flat, 4), torch.full((1, 3, 32, 32), 0.3))
    checks = torch.ones(1, 3, 32, 32)
    checks[..., 16:] = -1
    assert shrink(checks, 4).abs().max() <= 1


def test_blur_is_scipys_three_tap_gaussian():
    image = torch.rand(2, 3, 12, 10)
    ours = gaussian_blur(image, 3, 0.6)
    reference = ndimage.gaussian_filter(
        image.double().numpy(), sigma=0.6, radius=1, axes=(2, 3), mode="mirror"
    )
    np.testing.assert_allclose(ours.numpy(), reference, atol=1e-6)


def test_blur_takes_its_share_of_images_each_by_itself():
    high = torch.rand(1, 3, 16, 16).expand(400, -1, -1, -1) * 2 - 1
    clean = degrade(high, 4, NoCorruption(), Randomness(range(400)))
    corrupted = degrade(high, 4, Blur(probability=0.3), Randomness(range(400)))
    changed = (corrupted != clean).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.3) < 0.08
    torch.testing.assert_close(
        corrupted[changed], gaussian_blur(clean, 3, 0.6)[changed], atol=1e-6, rtol=0
    )
    assert torch.equal(corrupted[~changed], clean[~changed])


def test_probability_is_exact_at_both_ends():
    high = torch.rand(8, 3, 16, 16) * 2 - 1
    clean = shrink(high, 4)
    for never in (Blur(probability=0), Bsr(probability=0)):
        assert torch.equal(degrade(high, 4, never, Randomness(range(8))), clean)
    for always in (Blur(probability=1), Bsr(probability=1)):
        corrupted = degrade(high, 4, always, Randomness(range(8)))
        assert (corrupted != clean).flatten(1).any(1).all()


@pytest.mark.parametrize("corruption", [Blur(), Bsr(probability=0.7)])
def test_corruption_belongs_to_the_sample(corruption):
    high = torch.rand(6, 3, 32, 32) * 2 - 1
    whole = degrade(high, 4, corruption, Randomness(range(6)))
    again = degrade(high, 4, corruption, Randomness(range(6)))
    assert torch.equal(whole, again)
    half = degrade(high[3:], 4, corruption, Randomness(range(3, 6)))
    assert torch.equal(half, whole[3:])
    other = degrade(high, 4, corruption, Randomness(range(10, 16)))
    assert not torch.equal(other, whole)


def test_corruption_is_chosen_by_kind():
    adapter = TypeAdapter(Corruption)
    assert adapter.validate_python({"kind": "bsr", "jpeg_quality": [30, 95]}) == Bsr(
        jpeg_quality=(30, 95)
    )
    assert adapter.validate_python({"kind": "blur"}) == Blur()
    for wrong in ({"kind": "blurr"}, {"kind": "blur", "kernel": 4}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
    with pytest.raises(ValidationError, match="smaller bound first"):
        Bsr(jpeg_quality=(95, 80))
