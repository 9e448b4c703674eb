"""Principal components of embeddings (§1.3, §2): exact over a stream, in float64.

Knows vectors alone; the codec quantises them, the probing of Fig. 7 cuts them off.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.errors import DataError


@dataclass(frozen=True)
class Pca:
    """Mean and principal components of a set of vectors, in float64 on the CPU."""

    mean: Float[Tensor, " d"]
    components: Float[Tensor, "k d"]
    """One a row, of unit length, that of the largest variance first: all, or as many as were kept.
    The largest entry of each is positive, so that the same data give the same signs."""
    spectrum: Float[Tensor, " d"]
    """Variance along each component, of all d."""

    def project(self, vectors: Float[Tensor, "b d"], keep: int) -> Float[Tensor, "b keep"]:
        """Coordinates along the first ``keep`` components."""
        return (vectors.double().cpu() - self.mean) @ self.components[:keep].T

    def reconstruct(self, vectors: Float[Tensor, "b d"], keep: int) -> Float[Tensor, "b d"]:
        """What the first ``keep`` components hold of the vectors; not renormalised."""
        return self.mean + self.project(vectors, keep) @ self.components[:keep]


def principal_components(batches: Iterable[Float[Tensor, "_ d"]]) -> Pca:
    """Fit on vectors that come in batches, of which only moments are kept.

    Raises:
        DataError: there is no vector.
    """
    moments: _Moments | None = None
    for batch in batches:
        moments = moments or _Moments(batch.shape[1])
        moments.add(batch)
    if moments is None or moments.count == 0:
        raise DataError("no embedding to find principal components of")
    variances, vectors = torch.linalg.eigh(moments.scatter / moments.count)
    components = vectors.T.flip(0)
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return Pca(moments.mean, components * largest.sign(), variances.flip(0).clamp(min=0))


class _Moments:
    """Count, mean and scatter matrix; batches are joined as by Chan et al. (1979)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.scatter = torch.zeros(size, size, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        vectors = vectors.detach().to("cpu", torch.float64)
        if len(vectors) == 0:
            return
        count = self.count + len(vectors)
        mean = vectors.mean(0)
        centred, step = vectors - mean, mean - self.mean
        weight = self.count * len(vectors) / count
        self.scatter += centred.T @ centred + weight * torch.outer(step, step)
        self.mean += step * (len(vectors) / count)
        self.count = count


def lost(spectrum: Float[Tensor, " d"], keep: int) -> float:
    """Share of the variance outside the first ``keep`` components: the error of §1.3."""
    total = spectrum.double().sum()
    return float(spectrum[keep:].double().sum() / total) if total > 0 else 0.0


def components_needed(spectrum: Float[Tensor, " d"], error: float) -> int:
    """The fewest components that lose at most this share of the variance."""
    spectrum = spectrum.double()
    kept = spectrum.cumsum(0) / spectrum.sum()
    return int((kept < 1 - error).sum()) + 1
