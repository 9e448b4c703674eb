"""What the studies of manipulation share: codes (z_i, x_T) of many pictures at once, and back."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from study import Setting
from unclip.diffusion.options import SamplingOptions
from unclip.evaluation.drawing import pixels, stacked
from unclip.manipulation.latents import EXACT, INVERSION
from unclip.randomness import Randomness, derive_seed
from unclip.types import finish

BATCH = 32
CURVE_STEPS = 31
"""Of the walks where a curve needs thousands: an eighth of the cost, and pictures still come
back, see `inversion`."""


def walk(**changed: object) -> SamplingOptions:
    """The inversion's walk with some options changed."""
    return INVERSION.updated(changed)


def parts(count: int) -> Iterator[slice]:
    """Rows that are computed together."""
    return (slice(start, start + BATCH) for start in range(0, count, BATCH))


def seeds(setting: Setting, count: int, take: str = "") -> list[int]:
    """One for each picture."""
    return [derive_seed(setting.seed, take, row) for row in range(count)]


class Codes:
    """Pictures and their codes, each found when first asked for; x_T outlives the run.

    Args:
        setting: whose model finds them.
        images: [h w 3] in 8 bits.
        steps: of the walk, the inversion's own if unset.
    """

    def __init__(
        self, setting: Setting, images: Sequence[np.ndarray], steps: int | None = None
    ) -> None:
        self.setting, self.images = setting, images
        self._steps = INVERSION.steps if steps is None else steps

    @cached_property
    def z(self) -> Tensor:
        """z_i of each."""
        return embed(self.setting, self.images)

    @cached_property
    def way(self) -> SamplingOptions:
        """The inversion's walk, told how far the decoder is from these pictures."""
        few = slice(0, BATCH)
        x0, asked = stacked(self.images[few]), walk(steps=self._steps)
        noise = Randomness(seeds(self.setting, len(x0), "inversion")).normal(*x0.shape[1:])
        with self.setting.model.decoder.use() as decoder:
            error = decoder.x0_error(x0, self.z[few], asked, noise)
        return asked.updated({"x0_error": round(error, 4)})

    @cached_property
    def x_T(self) -> Tensor:  # noqa: N802
        """x_T of each."""
        name = hashlib.sha256(self.way.model_dump_json().encode()).hexdigest()[:8]
        return self.setting.kept(
            f"x_T-{name}", lambda: invert(self.setting, self.images, self.z, self.way)
        )


def embed(setting: Setting, images: Sequence[np.ndarray]) -> Tensor:
    """z_i of each picture."""
    rows = [setting.model.encode_image(stacked(images[part])) for part in parts(len(images))]
    return torch.cat(rows).cpu()


def invert(
    setting: Setting,
    images: Sequence[np.ndarray],
    z: Tensor,
    options: SamplingOptions,
    *,
    exact: bool = False,
) -> Tensor:
    """x_T of each picture."""
    found = []
    chosen = seeds(setting, len(images), "inversion")
    for part in parts(len(images)):
        x0 = stacked(images[part])
        noise = Randomness(chosen[part]).normal(*x0.shape[1:])
        with setting.model.decoder.use() as decoder:
            steps = decoder.invert(
                x0, z[part], None, options, iterations=EXACT if exact else 0, noise=noise
            )
            found.append(finish(steps).cpu())
    return torch.cat(found)


def decode(
    setting: Setting,
    z: Tensor,
    options: SamplingOptions,
    x_T: Tensor | None = None,
    take: str = "",
) -> Tensor:
    """Pictures [n 3 h w] of codes, without captions; x_T is fresh noise if there is none."""
    drawn, chosen = [], seeds(setting, len(z), take)
    for part in parts(len(z)):
        with setting.model.decoder.use() as decoder:
            noise = None if x_T is None else x_T[part]
            randomness = Randomness(chosen[part])
            steps = decoder.sample(z[part], None, options, randomness, x_T=noise)
            drawn.append(finish(steps).cpu())
    return torch.cat(drawn)


def eight_bit(images: Tensor) -> np.ndarray:
    """As pictures are saved: uint8 [n h w 3]."""
    return pixels(images)


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each pair in dB, clipped as a file clips them."""
    error = (one.clamp(-1, 1) - other.clamp(-1, 1)).square().flatten(1).mean(1)
    return 10 * (4 / error.clamp(min=1e-12)).log10()


def neighbours(x: Tensor) -> Tensor:
    """Correlation of each latent's pixels with those to their right and below."""
    x = x - x.mean((1, 2, 3), keepdim=True)
    across = (x[..., 1:] * x[..., :-1]).mean((1, 2, 3))
    down = (x[..., 1:, :] * x[..., :-1, :]).mean((1, 2, 3))
    return (across + down) / 2 / x.square().mean((1, 2, 3))
