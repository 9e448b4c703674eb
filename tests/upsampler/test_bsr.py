"""BSR: every stage against its closed form, and the whole against drift and nondeterminism."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

import unclip.upsampler.bsr as module
from unclip.upsampler.bsr import (
    Bsr,
    add_noise,
    bsr,
    convolve,
    decimate,
    gaussian_kernel,
    jpeg,
    random_kernel,
    random_resize,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moments(kernel: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance (x, y) of a kernel read as a distribution about its middle."""
    weights = kernel.double().numpy()
    position = np.arange(len(weights)) - (len(weights) - 1) / 2
    y, x = np.meshgrid(position, position, indexing="ij")
    points = np.stack([x.ravel(), y.ravel()])
    mean = points @ weights.ravel()
    centred = points - mean[:, None]
    return mean, (centred * weights.ravel()) @ centred.T


def test_kernel_has_the_covariance_asked_for():
    angle, variances = 0.7, (9.0, 2.0)
    kernel = gaussian_kernel(41, variances, angle)
    assert kernel.sum().item() == pytest.approx(1, abs=1e-6)
    mean, covariance = moments(kernel)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(covariance, rotation @ np.diag(variances) @ rotation.T, atol=1e-3)


def test_kernel_without_width_leaves_the_image():
    image = torch.rand(3, 9, 9)
    torch.testing.assert_close(convolve(image, gaussian_kernel(5, (0.0, 0.0))), image)


def test_light_kernels_are_narrow_odd_and_centred():
    sizes, widest = set(), 0.0
    for seed in range(300):
        kernel = random_kernel(4, Bsr(), seeded(seed))
        sizes.add(len(kernel))
        mean, covariance = moments(kernel)
        assert kernel.sum().item() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        widest = max(widest, np.linalg.eigvalsh(covariance)[-1])
    assert sizes == {5, 7, 9, 11, 13}
    assert 1.5 < widest <= 2.0 + 1e-6  # a quarter of 4 + s


def test_half_of_the_kernels_are_isotropic():
    covariances = [moments(random_kernel(4, Bsr(), seeded(seed)))[1] for seed in range(600)]
    isotropic = sum(abs(c[0, 1]) < 1e-6 and abs(c[0, 0] - c[1, 1]) < 1e-6 for c in covariances)
    assert isotropic / 600 == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_decimation_samples_the_centres_of_low_res_pixels(scale):
    """A blur leaves a linear ramp alone, so the result is the ramp at those centres."""
    side = 24 * scale
    ramp = (torch.arange(side) / side).expand(3, side, side)
    low = decimate(ramp, scale, 0.5 * scale)
    assert low.shape == (3, 24, 24)
    expected = (torch.arange(24) * scale + (scale - 1) / 2) / side
    edge = 13 // scale + 1
    torch.testing.assert_close(low[0, 12, edge:-edge], expected[edge:-edge], atol=1e-5, rtol=0)


def test_resizing_uses_all_three_interpolations():
    image = torch.rand(3, 32, 32)
    expected = [
        torch.nn.functional.interpolate(image[None], (13, 9), mode=mode)[0]
        for mode in ("bilinear", "bicubic", "area")
    ]
    seen = set()
    for seed in range(40):
        resized = random_resize(image, (13, 9), seeded(seed))
        seen.add(next(i for i, other in enumerate(expected) if torch.equal(resized, other)))
    assert seen == {0, 1, 2}


def test_noise_has_its_level_and_its_three_kinds():
    level, kinds = 0.02, []
    for seed in range(400):
        noise = add_noise(torch.zeros(3, 40, 40), level, seeded(seed)).flatten(1)
        covariance = (noise @ noise.T / noise.shape[1] / level**2).numpy()
        if np.allclose(covariance, 1, atol=0.2):
            kinds.append("grey")
        elif np.allclose(covariance, np.eye(3), atol=0.2):
            kinds.append("colour")
        else:
            kinds.append("correlated")
            values = np.linalg.eigvalsh(covariance)
            assert values.min() > -1e-6
            assert values.max() < 1.2
    for kind, share in {"colour": 0.4, "grey": 0.4, "correlated": 0.2}.items():
        assert kinds.count(kind) / 400 == pytest.approx(share, abs=0.08)


def test_jpeg_is_pillows():
    image = torch.rand(3, 16, 24)
    memory = io.BytesIO()
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(memory, format="JPEG", quality=60)
    expected = np.asarray(Image.open(memory)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(jpeg(image, 60).numpy(), expected, atol=1e-6)


def test_jpeg_quality_stays_in_its_range(monkeypatch):
    qualities, original = [], module.jpeg

    def spy(image, quality):
        qualities.append(quality)
        return original(image, quality)

    monkeypatch.setattr(module, "jpeg", spy)
    for seed in range(150):
        bsr(torch.zeros(3, 16, 16), 4, Bsr(), seeded(seed))
    assert set(qualities) == set(range(80, 96))
    # One JPEG always, the shuffled one in nine of ten.
    assert len(qualities) / 150 == pytest.approx(1.9, abs=0.08)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_result_is_a_picture_of_the_right_size(factor):
    high = torch.rand(3, 24 * factor, 12 * factor) * 2 - 1
    for seed in range(25):
        low = bsr(high, factor, Bsr(), seeded(seed))
        assert low.shape == (3, 24, 12)
        assert low.min() >= -1
        assert low.max() <= 1


def test_seed_decides_everything():
    high = torch.rand(3, 32, 32) * 2 - 1
    first = [bsr(high, 4, Bsr(), seeded(seed)) for seed in range(6)]
    for seed, image in enumerate(first):
        assert torch.equal(bsr(high, 4, Bsr(), seeded(seed)), image)
        assert all(not torch.equal(image, other) for other in first[seed + 1 :])


def test_content_does_not_move():
    """The centroid of a dot: within half a low-res pixel at worst, and centred on average."""
    dot = -torch.ones(3, 128, 128)
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    inside = (x - 51.5) ** 2 + (y - 75.5) ** 2 < 20**2
    dot[:, inside] = 1
    position = torch.arange(32.0)
    shifts = []
    for seed in range(200):
        # JPEG and noise leave faint grain far away, which would pull a centroid.
        low = (bsr(dot, 4, Bsr(), seeded(seed)).mean(0) / 2 + 0.5 - 0.1).clamp_min(0)
        shifts.append(
            [
                (low.sum(0) @ position / low.sum()).item() - 12.5,
                (low.sum(1) @ position / low.sum()).item() - 18.5,
            ]
        )
    shifts = np.asarray(shifts)
    assert np.abs(shifts).max() < 0.5
    assert np.abs(shifts.mean(0)).max() < 0.05


def test_strength_light_against_original():
    """The light variant stays near a plain shrink; the original variant goes much further."""
    torch.manual_seed(0)
    coarse = torch.rand(1, 3, 8, 8) * 2 - 1
    high = torch.nn.functional.interpolate(coarse, scale_factor=16, mode="bicubic")[0].clamp(-1, 1)
    clean = torch.nn.functional.avg_pool2d(high[None], 4)[0]
    original = Bsr(
        blurs=2,
        width=1.0,
        isotropic_kernel=(7, 25),
        anisotropic_kernel=(7, 25),
        nearest_probability=0.25,
        noise_level=(2, 25),
        jpeg_quality=(30, 95),
    )

    def error(config: Bsr) -> float:
        changes = [bsr(high, 4, config, seeded(seed)) - clean for seed in range(40)]
        return torch.stack(changes).square().mean().sqrt().item()

    light = error(Bsr())
    assert 0.05 < light < 0.2
    assert error(original) > 1.5 * light, (light, error(original))
