"""DDIM (§4.2) for any η, and its inversion (§2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.randomness import Randomness
from unclip.types import Sampling, Step


def ddim(
    denoiser: Denoiser,
    x_T: Float[Tensor, "b ..."],
    randomness: Randomness,
    *,
    stage: str,
    eta: float = 0.0,
) -> Sampling:
    """Sample with η times the ancestral deviation; η = 0 is deterministic and draws no noise."""
    alpha, sigma = denoiser.alpha, denoiser.sigma
    posterior = denoiser.grid.posterior_variance.tolist()
    x = x_T
    for index, place in enumerate(reversed(range(len(denoiser)))):
        with torch.no_grad():
            prediction = denoiser(x, place)
            if place == 0:
                x = prediction.x0
            else:
                variance = eta**2 * posterior[place]
                # Only η > 1 can ask for more noise than the next level holds.
                direction = math.sqrt(max(sigma[place - 1] ** 2 - variance, 0))
                x = alpha[place - 1] * prediction.x0 + direction * prediction.noise
                if eta > 0:
                    noise = randomness.normal(*x.shape[1:]).to(x)
                    x = x + math.sqrt(variance) * noise
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def invert_ddim(
    denoiser: Denoiser, x0: Float[Tensor, "b ..."], *, stage: str, iterations: int = 0
) -> Sampling:
    """Walk DDIM with η = 0 backwards, from clean data to the noisiest level of the grid.

    A step from one level to the next reads ε̂ where it stands instead of where it goes, so the
    error of a round trip falls with the number of steps. ``iterations`` more evaluations a step
    solve for the point from which DDIM would have come, to rounding if they are enough.
    """
    alpha, sigma = [1.0, *denoiser.alpha], [0.0, *denoiser.sigma]
    x = x0
    for index in range(len(denoiser)):
        with torch.no_grad():
            # Clean data have no level of their own: the cleanest of the grid stands in.
            prediction = denoiser(x, max(index - 1, 0))
            scale = alpha[index + 1] / alpha[index]
            growth = sigma[index + 1] - scale * sigma[index]
            moved = scale * x + growth * prediction.noise
            for _ in range(iterations):
                prediction = denoiser(moved, index)
                moved = scale * x + growth * prediction.noise
            x = moved
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x
