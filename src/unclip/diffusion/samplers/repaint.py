"""Inpainting (RePaint, arXiv 2201.09865): a DDIM walk that knows a part of the picture."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.clipping import Clip
from unclip.diffusion.samplers.ddim import ddim_step
from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.randomness import Randomness
from unclip.types import Sampling, Step


@dataclass(frozen=True)
class Known:
    """What is given of a sample, and how hard the rest is fitted to it."""

    sample: Float[Tensor, "b c h w"]
    """Clean data; what lies under the mask does not matter."""
    mask: Float[Tensor, "b 1 h w"]
    """1 where to draw, 0 where ``sample`` holds; between them a mixture."""
    resamplings: int = 1
    """How often each step is taken, noise being added back between. More join better."""

    def kept(self, clip: Clip | None) -> Clip:
        """``clip``, followed by putting the known part into x̂0."""

        def keep(x0: Tensor) -> Tensor:
            x0 = x0 if clip is None else clip(x0)
            mask, sample = self.mask.to(x0), self.sample.to(x0)
            return mask * x0 + (1 - mask) * sample

        return keep


def repaint(
    denoiser: Denoiser,
    x_T: Float[Tensor, "b ..."],
    randomness: Randomness,
    *,
    stage: str,
    eta: float,
    resamplings: int,
) -> Sampling:
    """DDIM that goes each step ``resamplings`` times.

    A step at which the network has seen the known part mends what it had drawn without it. The
    denoiser's x̂0 is to hold the known part already (`Known.kept`): from there, with η = 1, x_t of
    that part has its exact distribution given x_{t+1}. RePaint draws it independently of x_{t+1}.
    """
    levels = len(denoiser)
    total = (levels - 1) * resamplings + 1
    x, index = x_T, 0
    for place in reversed(range(levels)):
        for left in reversed(range(resamplings if place > 0 else 1)):
            with torch.no_grad():
                prediction = denoiser(x, place)
                x = ddim_step(denoiser, prediction, place, eta, randomness)
                if left:
                    x = _back(denoiser, x, place, randomness)
            yield Step(stage, index, total, x, prediction.x0)
            index += 1
    return x


def _back(denoiser: Denoiser, x: Tensor, place: int, randomness: Randomness) -> Tensor:
    """Add the noise of one step, q(x_t | x_{t−1})."""
    ratio = denoiser.alpha[place] / denoiser.alpha[place - 1]
    variance = denoiser.sigma[place] ** 2 - (ratio * denoiser.sigma[place - 1]) ** 2
    return ratio * x + max(variance, 0.0) ** 0.5 * randomness.normal(*x.shape[1:]).to(x)
