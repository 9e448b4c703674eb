"""Keeping x̂0 in the range of the data while sampling (§4.2)."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Clip = Callable[[Tensor], Tensor]


def clipping(
    kind: Literal["none", "static", "dynamic"],
    bound: float,
    percentile: float,
    limit: float | None = None,
) -> Clip | None:
    """The function of x̂0 that ``kind`` names, or None."""
    match kind:
        case "none":
            return None
        case "static":
            return partial(torch.clamp, min=-bound, max=bound)
        case "dynamic":
            return partial(dynamic_threshold, bound=bound, percentile=percentile, limit=limit)


def dynamic_threshold(
    x0: Float[Tensor, "b ..."], bound: float, percentile: float, limit: float | None = None
) -> Float[Tensor, "b ..."]:
    """Clamp each sample to its own percentile of |x0|, then scale it to ±bound (§4.2).

    A sample whose percentile lies within ±bound is clamped there instead and not scaled; one
    whose percentile lies beyond ±limit is clamped at that.
    """
    # One sample at a time, because torch.quantile refuses more than 2^24 values.
    limits = torch.stack([row.quantile(percentile) for row in x0.abs().flatten(1)])
    limits = limits.clamp(bound, limit).reshape(-1, *[1] * (x0.ndim - 1))
    return x0.clamp(-limits, limits) * (bound / limits)
