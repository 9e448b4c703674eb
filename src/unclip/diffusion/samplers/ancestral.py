"""Ancestral sampling (§4.2): from the posterior q(x_{t−1} | x_t, x̂0), step by step."""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unclip.diffusion.analytic import analytic_variance
from unclip.diffusion.options import Variance
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
    variance: Variance | None = None,
    posterior_mse: Float64[Tensor, " k"] | None = None,
) -> Sampling:
    """Sample with a variance, the process's own if none is named; the last step draws no noise.

    ``posterior_mse`` holds M_t at each level of the grid, for the variance ``analytic`` (§4.4).

    Raises:
        OptionError: the variance was neither learned nor measured.
    """
    variance = variance or denoiser.process.config.variance
    grid = denoiser.grid
    x0_scale, x_t_scale = grid.posterior_x0_scale.tolist(), grid.posterior_x_t_scale.tolist()
    low, high = grid.log_posterior_variance.tolist(), grid.log_beta.tolist()
    fixed = _fixed_deviation(denoiser, variance, posterior_mse)
    x = x_T
    for index, place in enumerate(reversed(range(len(denoiser)))):
        with torch.no_grad():
            prediction = denoiser(x, place)
            x = x0_scale[place] * prediction.x0 + x_t_scale[place] * x
            if place > 0:
                noise = randomness.normal(*x.shape[1:]).to(x)
                if variance == "learned_range":
                    assert prediction.variance_fraction is not None
                    span = high[place] - low[place]
                    log_variance = low[place] + prediction.variance_fraction * span
                    x = x + (log_variance / 2).exp() * noise
                else:
                    x = x + fixed[place] * noise
        yield Step(stage, index, len(denoiser), x, prediction.x0)
    return x


def _fixed_deviation(
    denoiser: Denoiser, variance: Variance, posterior_mse: Tensor | None
) -> list[float]:
    """Standard deviation of each step where the network does not say it."""
    grid = denoiser.grid
    match variance:
        case "learned_range":
            if denoiser.process.config.variance != "learned_range":
                raise OptionError(
                    "this network learned no variance; choose fixed_small or fixed_large"
                )
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
