"""Alternating measurement of two sides, and its median and quartiles. It knows no network."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Protocol


class Timed(Protocol):
    """Something that can do its work once and say how long that took."""

    def run(self) -> float:
        """Do the work; seconds."""


@dataclass(frozen=True)
class Summary:
    """Median and quartiles of several measurements."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Summarise; quartiles are interpolated between measurements."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)

    def plain(self) -> dict[str, float]:
        """As a dictionary, for JSON."""
        return {name: float(f"{value:.5g}") for name, value in asdict(self).items()}


def alternate(sides: Mapping[str, Timed], pairs: int) -> dict[str, list[float]]:
    """Measure every side ``pairs`` times, in turns.

    Each round begins with the other side, so that a drift of the machine (heat, a neighbour)
    meets all sides alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(pairs):
        for name in order:
            seconds[name].append(sides[name].run())
        order.reverse()
    return seconds


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Summary:
    """How many times faster ``fast`` was than ``slow``, pair by pair."""
    return Summary.of([a / b for a, b in zip(slow, fast, strict=True)])
