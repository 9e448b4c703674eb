"""Low-res conditioning for training: shrink a high-res crop and corrupt it (§1.6).

Corruption hides the artefacts of the stage below, which the upsampler meets when sampling. It
acts before enlarging, on each image by itself, and only in training.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from unclip.config import Config
from unclip.randomness import Randomness
from unclip.upsampler.bsr import Bsr, bsr
from unclip.upsampler.resize import shrink

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class NoCorruption(Config):
    """Condition on the clean low-res image."""

    kind: Literal["none"] = "none"


class Blur(Config):
    """Gaussian blur of the low-res image: the first upsampler's (paper: 3×3, σ 0.6)."""

    kind: Literal["blur"] = "blur"
    kernel: int = Field(default=3, ge=1)
    sigma: float = Field(default=0.6, gt=0.0)
    """In low-res pixels."""
    probability: Fraction = 0.5
    """Per image; the paper does not say, half is what cascaded diffusion (2106.15282) does."""

    @model_validator(mode="after")
    def _kernel_has_a_centre(self) -> "Blur":
        if self.kernel % 2 == 0:
            raise ValueError(f"a blur kernel of {self.kernel} has no centre; use an odd size")
        return self


Corruption = Annotated[NoCorruption | Blur | Bsr, Field(discriminator="kind")]


def degrade(
    high: Float[Tensor, "b 3 H W"],
    factor: int,
    corruption: NoCorruption | Blur | Bsr,
    randomness: Randomness,
) -> Float[Tensor, "b 3 h w"]:
    """Make the corrupted low-res images of a training batch, in [-1, 1].

    Args:
        high: high-res crops in [-1, 1]; sides are multiples of ``factor``.
        factor: how much smaller the result is.
        corruption: what happens to each image, with its own probability.
        randomness: decides which images and how; equal streams give equal pictures.
    """
    low = shrink(high, factor)
    if isinstance(corruption, NoCorruption):
        return low
    chosen = (randomness.uniform() < corruption.probability).to(low.device)
    if isinstance(corruption, Blur):
        blurred = gaussian_blur(low, corruption.kernel, corruption.sigma)
        return torch.where(chosen[:, None, None, None], blurred, low)
    # The stages of BSR change an image's size, so each image draws from a stream of its own.
    seeds = randomness.integers(2**62).tolist()
    for index in chosen.nonzero().flatten().tolist():
        generator = torch.Generator().manual_seed(seeds[index])
        low[index] = bsr(high[index], factor, corruption, generator)
    return low


def gaussian_blur(
    images: Float[Tensor, "b c h w"], kernel: int, sigma: float
) -> Float[Tensor, "b c h w"]:
    """Convolve with a sampled Gaussian of ``kernel`` taps a side, mirrored at the borders.

    σ in pixels; ``kernel`` is odd and at most twice the image's smaller side.
    """
    radius = kernel // 2
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-offsets.square() / (2 * sigma**2))
    taps = taps / taps.sum()
    channels = images.shape[1]
    padded = functional.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    columns = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(
        functional.conv2d(padded, rows, groups=channels), columns, groups=channels
    )
