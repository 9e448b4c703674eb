"""Figures with their standard errors: shares, means, ratios, and what a bootstrap says (§6)."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from unclip.errors import OptionError

NORMAL_95 = 1.96
"""Half the width of a 95 % interval in standard errors, as in the paper's Table 1."""


@dataclass(frozen=True)
class Score:
    """A figure measured on ``n`` samples. Without a value (0/0) it is NaN."""

    value: float
    standard_error: float
    n: int

    @property
    def interval(self) -> float:
        """Half the width of the 95 % interval, by the normal approximation."""
        return NORMAL_95 * self.standard_error

    def as_json(self) -> dict[str, Any]:
        """Plain values; NaN, which JSON has not, becomes None."""
        values = asdict(self)
        return {k: None if math.isnan(v) else round(v, 6) for k, v in values.items()}

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f} (n = {self.n})"


def share(hits: Bool[Tensor, " n"]) -> Score:
    """Share of samples that are right: standard error √(p(1−p)/n)."""
    n, value = len(hits), hits.double().mean().item()
    return Score(value, math.sqrt(value * (1 - value) / n), n)


def mean(values: Shaped[Tensor, " n"]) -> Score:
    """Mean of independent samples."""
    n = len(values)
    spread = values.double().std().item() if n > 1 else math.nan
    return Score(values.double().mean().item(), spread / math.sqrt(n), n)


def ratio(numerators: Shaped[Tensor, " n"], denominators: Shaped[Tensor, " n"]) -> Score:
    """Ratio of two means over the same samples; standard error by the delta method.

    A denominator of mean zero has no ratio: NaN.
    """
    n, above, below = len(numerators), numerators.double(), denominators.double()
    if below.mean() == 0:
        return Score(math.nan, math.nan, n)
    value = (above.mean() / below.mean()).item()
    residuals = above - value * below
    error = residuals.std(correction=0) / math.sqrt(n) / below.mean().abs()
    return Score(value, error.item(), n)


def corrected(
    hits: Bool[Tensor, " n"], real: Bool[Tensor, " n"], chance: float | Float[Tensor, " n"]
) -> Score:
    """Hits as a share of what real pictures reach, both above chance: (R − c) / (R_real − c).

    Args:
        hits: of the model's pictures.
        real: of the real pictures for the same questions.
        chance: share that guessing reaches, such as k of the number of candidates; of all
            questions, or of each.

    Where the evaluator hardly beats chance on real pictures (by less than two standard errors)
    its verdict on drawn ones says nothing: NaN.
    """
    reach = mean(real.double() - chance)
    if not reach.value > 2 * reach.standard_error:
        return Score(math.nan, math.nan, len(hits))
    return ratio(hits.double() - chance, real.double() - chance)


def chance_of(right: int, candidates: int, k: int) -> float:
    """Probability that guessing puts one of ``right`` candidates among the first ``k``."""
    wrong = candidates - right
    return 1 - math.comb(wrong, k) / math.comb(candidates, k)


def quotient(above: Score, below: Score) -> Score:
    """Ratio of two figures of independent samples; NaN unless the lower one is above nought."""
    if below.value <= 0:
        return Score(math.nan, math.nan, min(above.n, below.n))
    value = above.value / below.value
    error = math.hypot(above.standard_error, value * below.standard_error) / abs(below.value)
    return Score(value, error, min(above.n, below.n))


def bootstrap(
    statistic: Callable[[Int[Tensor, " n"]], float], n: int, draws: int = 30, seed: int = 0
) -> float:
    """Standard deviation of a statistic over resamples with replacement.

    Args:
        statistic: computes the figure of the samples at the given indices.
        n: number of samples.
        draws: number of resamples.
        seed: the same seed, the same resamples.
    """
    generator = torch.Generator().manual_seed(seed)
    values = [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(draws)]
    return torch.tensor(values, dtype=torch.float64).std().item()


def equal_counts(a: Float[Tensor, "n k"], b: Float[Tensor, "m k"], what: str) -> None:
    """Refuse sets of unequal size: distances between sets are biased by their size.

    Raises:
        OptionError: they are unequal, or hold less than two samples.
    """
    if len(a) != len(b):
        raise OptionError(
            f"{what} compares sets of equal size, not {len(a)} and {len(b)}; shorten the larger"
        )
    if len(a) < 2:
        raise OptionError(f"{what} needs two images at least, not {len(a)}")
