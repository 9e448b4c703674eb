"""DPM-Solver++(2M) (§4.5): second-order multistep solver of the ODE in λ = ½ log SNR."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.types import Sampling, Step


def dpm_solver(denoiser: Denoiser, x_T: Float[Tensor, "b ..."], *, stage: str) -> Sampling:
    """Sample deterministically; best with levels evenly spaced in λ.

    The first step has no predecessor and the last goes to σ = 0, where h is infinite: both are
    of first order, and the last returns x̂0.
    """
    alpha, sigma = denoiser.alpha, denoiser.sigma
    half_log_snr = denoiser.grid.half_log_snr.tolist()
    x = x_T
    previous: Tensor | None = None
    previous_h = math.inf
    for index, place in enumerate(reversed(range(len(denoiser)))):
        with torch.no_grad():
            x0 = denoiser(x, place).x0
            if place == 0:
                x = x0
            else:
                h = half_log_snr[place - 1] - half_log_snr[place]
                direction = x0
                # A level of pure noise lies infinitely far off and says nothing of the slope.
                if previous is not None and math.isfinite(previous_h):
                    direction = x0 + h / (2 * previous_h) * (x0 - previous)
                ratio = sigma[place - 1] / sigma[place]
                x = ratio * x - alpha[place - 1] * math.expm1(-h) * direction
                previous, previous_h = x0, h
        yield Step(stage, index, len(denoiser), x, x0)
    return x
