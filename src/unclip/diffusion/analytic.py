"""Analytic-DPM variance (§4.4): the best isotropic variance of an ancestral step.

It needs one number a level, the mean squared error M_t of x̂0 on held-out data, which estimates
the variance of p(x0 | x_t) per dimension.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from unclip.diffusion.process import Network, Process
from unclip.diffusion.schedule import Schedule
from unclip.randomness import Randomness


def measure_posterior_mse(
    process: Process,
    network: Network,
    x0: Float[Tensor, "b ..."],
    timesteps: Sequence[int],
    randomness: Randomness,
) -> Float64[Tensor, " k"]:
    """M_t = E‖x̂0 − x0‖²/d at each of ``timesteps``, over one batch of held-out data.

    Average over batches for a steadier figure. Noise is drawn afresh at each timestep.
    """
    x0 = x0 if x0.dtype == torch.float64 else x0.float()
    errors = []
    for timestep in timesteps:
        with torch.no_grad():
            t = torch.full((len(x0),), timestep, device=x0.device)
            x_t = process.add_noise(x0, t, randomness.normal(*x0.shape[1:]).to(x0))
            error = process.interpret(network(x_t, t), x_t, t).x0 - x0
            errors.append(error.square().mean())
    return torch.stack(errors).cpu().double()


def interpolate_posterior_mse(
    posterior_mse: Float64[Tensor, " k"], measured: Schedule, wanted: Schedule
) -> Float64[Tensor, " m"]:
    """M_t at the levels of ``wanted``, linear in t between the ``measured`` ones.

    M_t belongs to a level, not to a grid: one measurement serves any number of steps.
    """
    at, known = wanted.timesteps.double(), measured.timesteps.double()
    if len(known) == 1:
        return posterior_mse.expand(len(at)).clone()
    right = torch.searchsorted(known, at).clamp(1, len(known) - 1)
    part = ((at - known[right - 1]) / (known[right] - known[right - 1])).clamp(0, 1)
    return torch.lerp(posterior_mse[right - 1], posterior_mse[right], part)


def analytic_variance(grid: Schedule, posterior_mse: Float64[Tensor, " k"]) -> Float[Tensor, " k"]:
    """σ² = β̃ + (√ᾱ_p β / (1−ᾱ))² M_t, kept within its bounds β̃ and β/(1−β) (§4.4)."""
    variance = grid.posterior_variance + grid.posterior_x0_scale.square() * posterior_mse
    return variance.clamp(
        min=grid.posterior_variance, max=grid.beta * grid.previous_alpha_bar / grid.alpha_bar
    )
