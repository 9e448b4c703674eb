"""BSR degradation (2103.14006), softened as latent-diffusion did (2112.10752); table of §1.6.

Blur, two downsamplings, noise and JPEG in random order, then JPEG. Works on one image on the
CPU, from one generator; knows no batch.
"""

import io
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn import functional

from unclip.config import Config

Picture = Float[Tensor, "3 _ _"]
"""One image in [0, 1], the range in which the figures of the paper are given."""


class Bsr(Config):
    """Strength of BSR. The defaults are the light variant that the second upsampler uses.

    Widths and levels are drawn uniformly from zero or the lower bound. Kernels have odd sizes
    only: an even one would move the picture by half a pixel.
    """

    kind: Literal["bsr"] = "bsr"
    probability: float = Field(default=1.0, ge=0.0, le=1.0)
    """Per image."""
    halve_probability: float = Field(default=0.25, ge=0.0, le=1.0)
    """Of halving the image first, when the factor is 4."""
    blurs: int = Field(default=1, ge=0)
    width: float = Field(default=0.25, gt=0.0)
    """On the paper's greatest widths for factor s: σ ≤ 2 + s/5 for an isotropic kernel,
    variances ≤ 4 + s along the axes of an anisotropic one. 1 is the original BSRGAN."""
    isotropic_kernel: tuple[int, int] = (5, 7)
    anisotropic_kernel: tuple[int, int] = (5, 14)
    nearest_probability: float = Field(default=0.2, ge=0.0, le=1.0)
    """Of a first downsampling by blur and decimation rather than a random resize."""
    noise_level: tuple[int, int] = (1, 2)
    """Standard deviation of the noise, out of 255."""
    jpeg_probability: float = Field(default=0.9, ge=0.0, le=1.0)
    """Of the JPEG among the shuffled stages; the final one always happens."""
    jpeg_quality: tuple[int, int] = (80, 95)

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "Bsr":
        for name in ("isotropic_kernel", "anisotropic_kernel", "noise_level", "jpeg_quality"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise ValueError(f"{name} is ({low}, {high}); give the smaller bound first")
        return self


def bsr(
    high: Float[Tensor, "3 H W"], factor: int, config: Bsr, generator: Generator
) -> Float[Tensor, "3 h w"]:
    """Shrink one image in [-1, 1] by ``factor`` and corrupt it; the content does not move.

    The result, in [-1, 1], lies on the device of ``high``.
    """
    image = high.float().cpu() / 2 + 0.5
    size = (image.shape[-2] // factor, image.shape[-1] // factor)
    scale = factor
    if factor == 4 and _chance(config.halve_probability, generator):
        scale = 2
        image = random_resize(image, (size[0] * 2, size[1] * 2), generator)

    def first_downsampling(image: Picture) -> Picture:
        if _chance(config.nearest_probability, generator):
            return decimate(image, scale, _uniform(0.1, 0.6 * scale, generator))
        ratio = _uniform(1.0, 2.0 * scale, generator)
        height, width = image.shape[-2:]
        return random_resize(image, (_shrunk(height, ratio), _shrunk(width, ratio)), generator)

    def second_downsampling(image: Picture) -> Picture:
        return random_resize(image, size, generator)

    def shuffled_jpeg(image: Picture) -> Picture:
        if _chance(config.jpeg_probability, generator):
            return jpeg(image, _integer(*config.jpeg_quality, generator))
        return image

    stages: list[Callable[[Picture], Picture]] = [
        first_downsampling,
        second_downsampling,
        lambda image: add_noise(image, _integer(*config.noise_level, generator) / 255, generator),
        shuffled_jpeg,
        *[lambda image: convolve(image, random_kernel(scale, config, generator))] * config.blurs,
    ]
    order = torch.randperm(len(stages), generator=generator).tolist()
    first, second = sorted((order.index(0), order.index(1)))
    order[first], order[second] = 0, 1
    for stage in order:
        image = stages[stage](image).clamp(0.0, 1.0)
    image = jpeg(image, _integer(*config.jpeg_quality, generator))
    return (image * 2 - 1).to(high.device)


def gaussian_kernel(
    size: int, variances: tuple[float, float], angle: float = 0.0, offset: float = 0.0
) -> Float[Tensor, "k k"]:
    """Sample a Gaussian and normalise its sum to 1.

    Args:
        size: taps a side.
        variances: along the two axes of the ellipse, in pixels squared.
        angle: of the first axis against x, in radians.
        offset: of the centre from the middle of the kernel, in pixels, both ways.
    """
    position = torch.arange(size, dtype=torch.float64) - (size - 1) / 2 - offset
    y, x = torch.meshgrid(position, position, indexing="ij")
    along = math.cos(angle) * x + math.sin(angle) * y
    across = math.cos(angle) * y - math.sin(angle) * x
    # A vanishing variance means no blur along that axis, not a division by zero.
    first, second = (max(variance, 1e-4) for variance in variances)
    kernel = torch.exp(-(along.square() / first + across.square() / second) / 2)
    return (kernel / kernel.sum()).float()


def random_kernel(scale: int, config: Bsr, generator: Generator) -> Float[Tensor, "k k"]:
    """Draw a blur: anisotropic or isotropic with equal probability, of random size and width."""
    if _chance(0.5, generator):
        widest = config.width * (4 + scale)
        variances = (_uniform(0.0, widest, generator), _uniform(0.0, widest, generator))
        angle = _uniform(0.0, math.pi, generator)
        return gaussian_kernel(_odd(*config.anisotropic_kernel, generator), variances, angle)
    sigma = _uniform(0.0, config.width * (2 + 0.2 * scale), generator)
    return gaussian_kernel(_odd(*config.isotropic_kernel, generator), (sigma**2, sigma**2))


def convolve(
    image: Float[Tensor, "3 h w"], kernel: Float[Tensor, "k k"], stride: int = 1
) -> Float[Tensor, "3 H W"]:
    """Convolve each channel, edges repeated, keeping every ``stride``-th pixel.

    Kernel size and stride are both odd or both even: then nothing moves.
    """
    size = kernel.shape[-1]
    assert (size - stride) % 2 == 0, (size, stride)
    pad = (size - stride) // 2
    padded = functional.pad(image[None], (pad, pad, pad, pad), mode="replicate")
    return functional.conv2d(padded.transpose(0, 1), kernel[None, None], stride=stride).transpose(
        0, 1
    )[0]


def decimate(image: Float[Tensor, "3 h w"], scale: int, sigma: float) -> Float[Tensor, "3 H W"]:
    """Blur with σ in pixels and keep one pixel in ``scale`` ("shifted-kernel nearest").

    The kernel's centre lies on the centre of a low-res pixel, between the pixels of ``image``
    when ``scale`` is even.
    """
    size = 25 if scale % 2 else 24
    return convolve(image, gaussian_kernel(size, (sigma**2, sigma**2)), stride=scale)


def random_resize(
    image: Float[Tensor, "3 h w"], size: tuple[int, int], generator: Generator
) -> Float[Tensor, "3 H W"]:
    """Resize with bilinear, bicubic or area interpolation; the first two alias, on purpose."""
    mode = ("bilinear", "bicubic", "area")[_integer(0, 2, generator)]
    if mode == "area":
        return functional.interpolate(image[None], size, mode=mode)[0]
    return functional.interpolate(image[None], size, mode=mode, align_corners=False)[0]


def add_noise(
    image: Float[Tensor, "3 h w"], level: float, generator: Generator
) -> Float[Tensor, "3 h w"]:
    """Add Gaussian noise: per channel, grey, or correlated between channels (0.4, 0.4, 0.2).

    ``level`` is the standard deviation. Correlated noise has covariance level²·U diag(d) Uᵀ
    with a random rotation U and d uniform in [0, 1], so it is somewhat weaker.
    """
    kind = _uniform(0.0, 1.0, generator)
    if kind < 0.4:
        noise = torch.randn(image.shape, generator=generator)
    elif kind < 0.8:
        noise = torch.randn(1, *image.shape[1:], generator=generator)
    else:
        rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
        deviations = torch.rand(3, generator=generator).sqrt()
        noise = torch.randn(image.shape, generator=generator)
        noise = torch.einsum("ij,j,jhw->ihw", rotation, deviations, noise)
    return image + level * noise


def jpeg(image: Float[Tensor, "3 h w"], quality: int) -> Float[Tensor, "3 h w"]:
    """Compress and decompress, with the usual 4:2:0 colour."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, format="JPEG", quality=quality)
    with Image.open(memory) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).float() / 255


def _shrunk(length: int, ratio: float) -> int:
    return max(1, round(length / ratio))


def _chance(probability: float, generator: Generator) -> bool:
    return _uniform(0.0, 1.0, generator) < probability


def _uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()


def _integer(low: int, high: int, generator: Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))


def _odd(low: int, high: int, generator: Generator) -> int:
    sizes = [size for size in range(low, high + 1) if size % 2] or [low | 1]
    return sizes[_integer(0, len(sizes) - 1, generator)]
