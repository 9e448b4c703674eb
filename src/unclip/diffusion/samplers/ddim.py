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
    x = x0
    for index in range(len(denoiser)):
        with torch.no_grad():
            # Clean data have no level of their own: the cleanest of the grid stands in.
            prediction = denoiser(x, max(index - 1, 0))
            on_x, _, on_noise = _backwards(denoiser, index, by_noise=True)
            moved = on_x * x + on_noise * prediction.noise
            # Of the two forms of the equation, the one whose fixed point contracts: x̂0 hardly
            # depends on x where noise prevails, and ε̂ hardly where data do.
            by_noise = index == 0 or denoiser.alpha[index] > denoiser.sigma[index]
            on_x, on_x0, on_noise = _backwards(denoiser, index, by_noise)
            for _ in range(iterations):
                prediction = denoiser(moved, index)
                moved = on_x * x + on_x0 * prediction.x0 + on_noise * prediction.noise
            x = moved
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def _backwards(denoiser: Denoiser, place: int, by_noise: bool) -> tuple[float, float, float]:
    """Factors of x, x̂0 and ε̂ that lead from the level before ``place`` up to it.

    DDIM's x_p = α_p x̂0 + σ_p ε̂ solved for x_t = α_t x̂0 + σ_t ε̂, with either x̂0 or ε̂ eliminated.
    """
    alpha, sigma = denoiser.alpha[place], denoiser.sigma[place]
    if place == 0:
        return alpha, 0.0, sigma
    below_alpha, below_sigma = denoiser.alpha[place - 1], denoiser.sigma[place - 1]
    if by_noise:
        ratio = alpha / below_alpha
        return ratio, 0.0, sigma - ratio * below_sigma
    ratio = sigma / below_sigma
    return ratio, alpha - ratio * below_alpha, 0.0
