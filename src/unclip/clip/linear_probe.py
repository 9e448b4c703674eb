"""Linear probe: logistic regression on frozen features (CLIP, arXiv 2103.00020, App. A; §5.3).

It knows no network: features come from `Clip.image_features`. Needs scikit-learn.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.errors import OptionError

STEPS_PER_DECADE = 8
_COARSE = 2 * STEPS_PER_DECADE
_LAST = 12 * STEPS_PER_DECADE
"""Grid of L2 strengths: 10^(k/8 - 6) for k from 0 to 96."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe and how it was chosen."""

    classifier: Any
    """The fitted scikit-learn ``LogisticRegression``."""
    strength: float
    """L2 strength λ, the best on the validation split."""
    validation: dict[float, float]
    """Validation accuracy at every strength tried."""

    def predict(self, features: Float[Tensor, "b features"]) -> Int[Tensor, " b"]:
        """Most probable label of each row."""
        return torch.from_numpy(self.classifier.predict(features.cpu().numpy()))

    def accuracy(self, features: Float[Tensor, "b features"], labels: Int[Tensor, " b"]) -> float:
        """Share of rows whose prediction is their label."""
        return (self.predict(features) == labels.cpu()).double().mean().item()


def linear_probe(
    train: tuple[Float[Tensor, "a features"], Int[Tensor, " a"]],
    validation: tuple[Float[Tensor, "v features"], Int[Tensor, " v"]],
    iterations: int = 1000,
) -> LinearProbe:
    """Fit by L-BFGS, choosing the L2 strength on a validation split, then refit on both.

    Strengths from 1e-6 to 1e6: every second decade first, then the interval around the best is
    halved until it has eight steps a decade.

    Args:
        train: features before the projection, and labels.
        validation: likewise.
        iterations: of L-BFGS, at most.

    Raises:
        OptionError: scikit-learn is missing, or the training split has one label only.
    """
    if len(train[1].unique()) < 2:
        raise OptionError("a linear probe needs training images of two labels or more")

    def score(k: int) -> float:
        probe = LinearProbe(_fit(*train, _strength(k), iterations), _strength(k), {})
        return probe.accuracy(*validation)

    best, scores = search(score)
    features, labels = (torch.cat(both) for both in zip(train, validation, strict=True))
    return LinearProbe(
        _fit(features, labels, _strength(best), iterations),
        _strength(best),
        {_strength(k): value for k, value in sorted(scores.items())},
    )


def search(score: Callable[[int], float]) -> tuple[int, dict[int, float]]:
    """Find the best of the grid points 0 … 96 by halving the interval around the peak.

    Returns:
        The best point, and the score of every point that was tried.
    """
    scores = {k: score(k) for k in range(0, _LAST + 1, _COARSE)}
    step = _COARSE
    while step > 1:
        step //= 2
        # Of equal peaks the middle one: a separable set scores alike over many decades.
        top = [k for k in sorted(scores) if scores[k] == max(scores.values())]
        peak = top[len(top) // 2]
        for k in (peak - step, peak + step):
            if 0 <= k <= _LAST and k not in scores:
                scores[k] = score(k)
    top = [k for k in sorted(scores) if scores[k] == max(scores.values())]
    return top[len(top) // 2], scores


def _strength(k: int) -> float:
    return 10.0 ** (k / STEPS_PER_DECADE - 6)


def _fit(features: Tensor, labels: Tensor, strength: float, iterations: int) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise OptionError(
            "the linear probe needs scikit-learn: pip install 'unclip[evaluate]'"
        ) from None
    classifier = LogisticRegression(C=1 / strength, max_iter=iterations)
    with warnings.catch_warnings():
        # The protocol stops at so many iterations, converged or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(features.cpu().numpy(), labels.cpu().numpy())
