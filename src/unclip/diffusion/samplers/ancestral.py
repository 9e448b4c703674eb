"""Ancestral sampling (§4.2): from the posterior q(x_{t−1} | x_t, x̂0), step by step."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unclip.diffusion.analytic import analytic_variance
from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import Sampling, Step


def ancestral(
    denoiser: Denoiser,
    x_T: Float[Tensor, "b ..."],
    randomness: Randomness,
    *,
    stage: str,
    posterior_mse: Float64[Tensor, " k"] | None = None,
) -> Sampling:
    """Sample with the process's own variance; noise is drawn at every step but the last.

    ``posterior_mse`` holds M_t at each level of the grid, for the variance ``analytic`` (§4.4).
    """
    grid = denoiser.grid
    x0_scale, x_t_scale = grid.posterior_x0_scale.tolist(), grid.posterior_x_t_scale.tolist()
    low, high = grid.log_posterior_variance.tolist(), grid.log_beta.tolist()
    fixed = _fixed_deviation(denoiser, posterior_mse)
    x = x_T
    for index, place in enumerate(reversed(range(len(denoiser)))):
        with torch.no_grad():
            prediction = denoiser(x, place)
            x = x0_scale[place] * prediction.x0 + x_t_scale[place] * x
            if place > 0:
                noise = randomness.normal(*x.shape[1:]).to(x)
                if prediction.variance_fraction is None:
                    x = x + fixed[place] * noise
                else:
                    span = high[place] - low[place]
                    log_variance = low[place] + prediction.variance_fraction * span
                    x = x + (log_variance / 2).exp() * noise
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def _fixed_deviation(denoiser: Denoiser, posterior_mse: Tensor | None) -> list[float]:
    """Standard deviation of each step where the network does not say it."""
    grid = denoiser.grid
    match denoiser.process.config.variance:
        case "learned_range":
            return []
        case "fixed_small":
            return grid.posterior_variance.sqrt().tolist()
        case "fixed_large":
            return grid.beta.sqrt().tolist()
        case "analytic":
            if posterior_mse is None:
                raise OptionError(
                    "the variance 'analytic' needs the posterior error measured on held-out data; "
                    "measure it, or use the variance 'fixed_small'"
                )
            return analytic_variance(grid, posterior_mse).sqrt().tolist()
