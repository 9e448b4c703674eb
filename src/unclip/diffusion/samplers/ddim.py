"""DDIM (§4.2) for any η, and its inversion (§2)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.process import Prediction
from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.randomness import Randomness
from unclip.types import Sampling, Step

PATIENCE = 3
"""Evaluations without a new smallest change after which a network's rounding is all that moves."""


def ddim(
    denoiser: Denoiser,
    x_T: Float[Tensor, "b ..."],
    randomness: Randomness,
    *,
    stage: str,
    eta: float = 0.0,
) -> Sampling:
    """Sample with η times the ancestral deviation; η = 0 is deterministic and draws no noise."""
    x = x_T
    for index, place in enumerate(reversed(range(len(denoiser)))):
        with torch.no_grad():
            prediction = denoiser(x, place)
            x = ddim_step(denoiser, prediction, place, eta, randomness)
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def ddim_step(
    denoiser: Denoiser, prediction: Prediction, place: int, eta: float, randomness: Randomness
) -> Float[Tensor, "b ..."]:
    """From the level ``place`` to the next cleaner one; from the cleanest to x̂0."""
    if place == 0:
        return prediction.x0
    variance = eta**2 * denoiser.posterior_variance[place]
    # Only η > 1 can ask for more noise than the next level holds.
    direction = math.sqrt(max(denoiser.sigma[place - 1] ** 2 - variance, 0))
    x = denoiser.alpha[place - 1] * prediction.x0 + direction * prediction.noise
    if eta > 0:
        x = x + math.sqrt(variance) * randomness.normal(*x.shape[1:]).to(x)
    return x


def invert_ddim(
    denoiser: Denoiser,
    x0: Float[Tensor, "b ..."],
    *,
    stage: str,
    iterations: int = 0,
    noise: Float[Tensor, "b ..."] | None = None,
) -> Sampling:
    """Walk DDIM with η = 0 backwards, from clean data to the noisiest level of the grid.

    A step from one level to the next reads ε̂ where it stands instead of where it goes, so the
    error of a round trip falls with the number of steps. Up to ``iterations`` more evaluations a
    step solve for the point from which DDIM would have come; they end once nothing moves.

    ``noise`` takes the place of ε̂ in the first step. ε̂ of clean data is far from noise where data
    are flat, and stays so all the way (arXiv 2410.23530); the first level's σ is invisible. That
    step is not solved: its solution is the picture without noise.
    """
    x = x0
    for index in range(len(denoiser)):
        with torch.no_grad():
            # Clean data have no level of their own: the cleanest of the grid stands in.
            prediction = denoiser(x, max(index - 1, 0))
            first = prediction.noise if noise is None or index > 0 else noise
            on_x, _, on_noise = _backwards(denoiser, index, by_noise=True)
            moved = on_x * x + on_noise * first
            # Of the two forms of the equation, the one whose fixed point contracts: x̂0 hardly
            # depends on x where noise prevails, and ε̂ hardly where data do.
            by_noise = index == 0 or denoiser.alpha[index] > denoiser.sigma[index]
            factors = _backwards(denoiser, index, by_noise)
            solved = iterations if noise is None or index > 0 else 0
            x, prediction = _settled(denoiser, x, moved, index, factors, solved, prediction)
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def _settled(
    denoiser: Denoiser,
    x: Tensor,
    moved: Tensor,
    place: int,
    factors: tuple[float, float, float],
    iterations: int,
    prediction: Prediction,
) -> tuple[Tensor, Prediction]:
    """Iterate x_t = a x + b x̂0(x_t) + c ε̂(x_t) from ``moved`` until rounding or the limit.

    Where the network is too steep to converge, the iteration ends before it runs away; where it
    rounds more coarsely than x_t, once the changes are nothing but its rounding.
    """
    on_x, on_x0, on_noise = factors
    tolerance = 8 * torch.finfo(x.dtype).eps
    least, since = math.inf, 0
    for _ in range(iterations):
        prediction = denoiser(moved, place)
        found = on_x * x + on_x0 * prediction.x0 + on_noise * prediction.noise
        change = float((found - moved).square().mean().sqrt())
        since = 0 if change < least else since + 1
        if change > 2 * least or since == PATIENCE:
            break
        moved, least = found, min(change, least)
        if change <= tolerance * float(moved.square().mean().sqrt()):
            break
    return moved, prediction


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
