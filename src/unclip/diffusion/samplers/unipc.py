"""UniPC (§4.5): predictor and corrector of any order, one evaluation a step; B(h) = e^h − 1."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.types import Sampling, Step


@dataclass(frozen=True)
class _Past:
    """x̂0 at a level already visited."""

    half_log_snr: float
    x0: Tensor


def unipc(
    denoiser: Denoiser, x_T: Float[Tensor, "b ..."], *, stage: str, order: int = 2
) -> Sampling:
    """Sample deterministically; order 2 suits guided, 3 unguided networks.

    The order rises with the levels visited and falls towards the last step, which returns x̂0.
    """
    half_log_snr = denoiser.grid.half_log_snr.tolist()
    steps = len(denoiser)
    x = x_T
    past: list[_Past] = []
    start, step_order = x, 1
    for index, place in enumerate(reversed(range(steps))):
        with torch.no_grad():
            x0 = denoiser(x, place).x0
            # A level of pure noise lies infinitely far off and says nothing of the slope.
            past = [seen for seen in past if math.isfinite(seen.half_log_snr)]
            if past:
                x = _move(denoiser, start, place + 1, past[-step_order:], x0)
            past = [*past, _Past(half_log_snr[place], x0)][-order:]
            start, step_order = x, min(order, steps - index, len(past))
            x = x0 if place == 0 else _move(denoiser, start, place, past[-step_order:], None)
        yield Step(stage, index, steps, x, x0)
    return x


def _move(
    denoiser: Denoiser, x: Tensor, place: int, past: list[_Past], arrived: Tensor | None
) -> Tensor:
    """Go from the level ``place`` to the next cleaner one.

    ``past`` ends with x̂0 at ``place``; ``arrived`` is x̂0 at the goal, which makes the predictor
    a corrector.
    """
    alpha, sigma = denoiser.alpha, denoiser.sigma
    goal = float(denoiser.grid.half_log_snr[place - 1])
    *earlier, here = past
    h = goal - here.half_log_snr
    reach = math.expm1(-h)
    moved = sigma[place - 1] / sigma[place] * x - alpha[place - 1] * reach * here.x0
    nodes = [(seen.half_log_snr - here.half_log_snr) / h for seen in reversed(earlier)]
    values = [seen.x0 for seen in reversed(earlier)]
    if arrived is not None:
        nodes, values = [*nodes, 1.0], [*values, arrived]
    for weight, node, value in zip(_weights(nodes, h), nodes, values, strict=True):
        moved = moved - alpha[place - 1] * reach * weight / node * (value - here.x0)
    return moved


def _weights(nodes: list[float], h: float) -> list[float]:
    """Weights of the divided differences at ``nodes``, from the order conditions of UniPC."""
    if not nodes:
        return []
    if len(nodes) == 1:
        # The first-order condition has a family of solutions; the authors take one half.
        return [0.5]
    step, total, factorial = -h, [], 1
    phi = math.expm1(step) / step - 1
    for k in range(1, len(nodes) + 1):
        total.append(phi * factorial / math.expm1(step))
        factorial *= k + 1
        phi = phi / step - 1 / factorial
    powers = torch.tensor([[node**k for node in nodes] for k in range(len(nodes))])
    right = torch.tensor(total, dtype=torch.float64)
    return torch.linalg.solve(powers.double(), right).tolist()
