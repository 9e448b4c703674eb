"""Which of T timesteps a sampler visits (§1.8, §4.2, §4.5). All return increasing timesteps.

A single step visits the noisiest level, since that is where sampling begins.
"""

import bisect
import itertools
from typing import Literal

from unclip.diffusion.schedule import Schedule
from unclip.errors import OptionError

Stride = Literal["exact", "accumulated", "multiplied"]
"""Rounding of a fractional stride: of exact fractions; of a running sum, as in guided-diffusion
and Karlo; of multiples of the rounded ratio, as in diffusers."""

LEAST_HALF_LOG_SNR = -5.1
"""λ below which solvers in λ do not start: the cosine schedule ends at −9.9, where they would
spend steps on levels that cannot be told from pure noise (§4.5)."""


def strided(total: int, steps: int, stride: Stride = "exact") -> tuple[int, ...]:
    """Fractional stride over 0 … total−1, both ends included: the paper's 250 and 64 steps.

    ``stride`` says how the fractions are rounded. It matters for a quarter of the step counts,
    and for a single step, which ``accumulated`` takes at 0 as guided-diffusion does.
    """
    if steps == 1:
        return (0,) if stride == "accumulated" else (total - 1,)
    match stride:
        case "exact":
            return tuple(round(i * (total - 1) / (steps - 1)) for i in range(steps))
        case "multiplied":
            ratio = (total - 1) / (steps - 1)
            return tuple(round(i * ratio) for i in range(steps))
        case "accumulated":
            ratio = (total - 1) / (steps - 1)
            return tuple(
                round(place) for place in itertools.accumulate([0.0] + [ratio] * (steps - 1))
            )


def integer_strided(total: int, steps: int) -> tuple[int, ...] | None:
    """Smallest integer stride from 0 that gives exactly ``steps``, or None if there is none.

    27 and 15 of 1000 are 0, 38, … 988 and 0, 67, … 938; 64 of 1000 does not exist.
    """
    if steps == 1:
        return (total - 1,)
    strides = (stride for stride in range(1, total) if len(range(0, total, stride)) == steps)
    stride = next(strides, None)
    return None if stride is None else tuple(range(0, total, stride))


def trailing(total: int, steps: int) -> tuple[int, ...]:
    """Even stride that ends at total−1, for schedules with zero terminal SNR (§4.5)."""
    return tuple(round(total - i * total / steps) - 1 for i in reversed(range(steps)))


def leading(total: int, steps: int) -> tuple[int, ...]:
    """The first ``steps`` multiples of T // steps: diffusers' and so Kandinsky's."""
    return tuple(range(0, steps * (total // steps), total // steps))


def even_log_snr(schedule: Schedule, steps: int) -> tuple[int, ...]:
    """Timesteps nearest to ``steps`` evenly spaced values of λ = ½ log SNR (§4.5).

    λ starts no lower than `LEAST_HALF_LOG_SNR`. Where the table is too coarse to give every
    value a timestep of its own, the next free one is taken.
    """
    rising = schedule.half_log_snr.flip(0).tolist()
    start = min(bisect.bisect_left(rising, LEAST_HALF_LOG_SNR), len(rising) - steps)
    rising, noisiest = rising[start:], len(rising) - 1 - start
    if steps == 1:
        return (int(schedule.timesteps[noisiest]),)
    low, high = rising[0], rising[-1]
    places: list[int] = []
    for i in range(steps):
        value = high + (low - high) * i / (steps - 1)
        after = min(bisect.bisect_left(rising, value), len(rising) - 1)
        near = min((after, max(after - 1, 0)), key=lambda j: abs(rising[j] - value))
        place = noisiest - near
        earliest = places[-1] + 1 if places else 0
        places.append(min(max(place, earliest), noisiest - (steps - 1 - i)))
    return tuple(int(schedule.timesteps[place]) for place in places)


def require(timesteps: tuple[int, ...] | None, total: int, steps: int) -> tuple[int, ...]:
    """Pass on the timesteps of an integer stride, or say that there is none."""
    if timesteps is None:
        raise OptionError(
            f"no integer stride makes {steps} steps of {total}; use another number of steps "
            "or the spacing 'strided'"
        )
    return timesteps
