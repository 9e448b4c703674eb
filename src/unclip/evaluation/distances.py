"""Distances between two sets of images in a feature space: FID, KID, CMMD, precision and recall.

Knows no networks: features come from `features.py`. All arithmetic is float64 (§6).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.evaluation.statistics import Score, bootstrap, equal_counts, share

BLOCK = 1024
"""Rows of a kernel or distance matrix that are in memory at once."""

Kernel = Callable[[Tensor, Tensor], Tensor]


class Moments:
    """Mean and covariance of features that come in batches and are not kept.

    Args:
        dimension: of the features.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dimension, dtype=torch.float64)
        self._scatter = torch.zeros(dimension, dimension, dtype=torch.float64)

    @classmethod
    def of(cls, features: Float[Tensor, "n k"]) -> "Moments":
        """Moments of features that are in memory already."""
        moments = cls(features.shape[1])
        for part in features.split(BLOCK):
            moments.add(part)
        return moments

    def add(self, features: Float[Tensor, "b k"]) -> None:
        """Take a batch in (Chan's update, exact for any split into batches)."""
        features = features.double().cpu()
        b, total = len(features), self.count + len(features)
        mean = features.mean(dim=0)
        centred = features - mean
        step = mean - self.mean
        self._scatter += centred.T @ centred + torch.outer(step, step) * (self.count * b / total)
        self.mean += step * (b / total)
        self.count = total

    @property
    def covariance(self) -> Float[Tensor, "k k"]:
        """Unbiased covariance of what was added."""
        return self._scatter / (self.count - 1)


def frechet(a: Moments, b: Moments) -> float:
    """Fréchet distance ‖μ₁−μ₂‖² + tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) of two Gaussians.

    (Σ₁Σ₂)^½ has the trace of (Σ₁^½ Σ₂ Σ₁^½)^½, which is symmetric: no complex roots appear.
    """
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = torch.linalg.eigvalsh(root @ b.covariance @ root)
    trace = a.covariance.trace() + b.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
    return ((a.mean - b.mean).square().sum() + trace).item()


def fid(real: Float[Tensor, "n k"], fake: Float[Tensor, "m k"], draws: int = 20) -> Score:
    """Fréchet distance of two sets of features of equal size, with a bootstrap standard error.

    Rows are resampled in pairs, which is right whether or not row i of both sets has one caption.
    Biased upward at small n, so only figures of equal n may be compared; of full rank only
    where n exceeds the dimension.

    Raises:
        OptionError: the sets are of unequal size.
    """
    equal_counts(real, fake, "FID")
    value = frechet(Moments.of(real), Moments.of(fake))
    error = bootstrap(
        lambda index: frechet(Moments.of(real[index]), Moments.of(fake[index])),
        len(real),
        draws,
    )
    return Score(value, error, len(real))


def kid(real: Float[Tensor, "n k"], fake: Float[Tensor, "m k"]) -> Score:
    """Kernel distance: unbiased MMD² with the kernel (x·y/k + 1)³.

    Computed over all pairs, which is what the mean over random subsets estimates; the standard
    error is the jackknife's.

    Raises:
        OptionError: the sets are of unequal size.
    """
    equal_counts(real, fake, "KID")
    dimension = real.shape[1]
    return mmd(real, fake, lambda x, y: (x @ y.T / dimension + 1) ** 3, unbiased=True)


def cmmd(real: Float[Tensor, "n k"], fake: Float[Tensor, "m k"], bandwidth: float = 10.0) -> Score:
    """CMMD (2401.09603): 1000 × biased MMD² of unit-norm CLIP embeddings, Gaussian kernel σ = 10.

    Features are scaled to unit length here.

    Raises:
        OptionError: the sets are of unequal size.
    """
    equal_counts(real, fake, "CMMD")
    real, fake = (torch.nn.functional.normalize(x.double(), dim=1) for x in (real, fake))

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(x, y).square() / (2 * bandwidth**2))

    score = mmd(real, fake, kernel, unbiased=False)
    return Score(1000 * score.value, 1000 * score.standard_error, score.n)


def mmd(
    x: Float[Tensor, "n k"], y: Float[Tensor, "m k"], kernel: Kernel, *, unbiased: bool
) -> Score:
    """Squared maximum mean discrepancy, with the jackknife's standard error.

    Args:
        x: one set.
        y: the other.
        kernel: takes two sets of rows, returns the matrix of all pairs.
        unbiased: leave pairs of a sample with itself out.
    """
    x, y = x.double(), y.double()
    xx, xx_self = _row_sums(x, x, kernel, with_self=not unbiased)
    yy, yy_self = _row_sums(y, y, kernel, with_self=not unbiased)
    xy, _ = _row_sums(x, y, kernel)
    yx, _ = _row_sums(y, x, kernel)
    n, m, less = len(x), len(y), int(unbiased)

    def pairs(count: int) -> int:
        return max(count * (count - less), 1)

    within_x, within_y = xx.sum() / pairs(n), yy.sum() / pairs(m)
    value = within_x + within_y - 2 * xy.sum() / (n * m)
    variance = torch.zeros((), dtype=torch.float64)
    for own, own_self, other, rest, count, others in (
        (xx, xx_self, xy, within_y, n, m),
        (yy, yy_self, yx, within_x, m, n),
    ):
        # The figure without each sample in turn: its row and column go.
        within = (own.sum() - 2 * own + own_self) / pairs(count - 1)
        without = within + rest - 2 * (other.sum() - other) / ((count - 1) * others)
        variance += (count - 1) / count * (without - without.mean()).square().sum()
    return Score(value.item(), variance.sqrt().item(), min(n, m))


def precision_recall(
    real: Float[Tensor, "n k"], fake: Float[Tensor, "m k"], neighbours: int = 3
) -> tuple[Score, Score]:
    """Improved precision and recall (1904.06991): share of each set inside the other's manifold.

    A set's manifold is the union of balls around its samples, each reaching to the sample's
    k-th nearest neighbour. Standard errors are of the shares, the manifolds taken as given.

    Args:
        real: features of real images.
        fake: features of drawn images.
        neighbours: k.

    Raises:
        OptionError: the sets are of unequal size.
    """
    equal_counts(real, fake, "precision and recall")
    real, fake = real.double(), fake.double()
    precision = _inside(fake, real, _radii(real, neighbours))
    recall = _inside(real, fake, _radii(fake, neighbours))
    return share(precision), share(recall)


def mean_pairwise_distance(embeddings: Float[Tensor, "n d"]) -> float:
    """Mean of 1 − cosine over all pairs of unit-norm embeddings: how much pictures differ."""
    n = len(embeddings)
    total = embeddings.double().sum(dim=0).square().sum()
    own = embeddings.double().square().sum()
    return (1 - (total - own) / (n * (n - 1))).item()


def _row_sums(
    x: Tensor, y: Tensor, kernel: Kernel, with_self: bool = True
) -> tuple[Tensor, Tensor]:
    """Σ_j k(x_i, y_j) for each i, and the terms k(x_i, y_i) that are in it."""
    sums, selves = [], []
    for start, part in zip(range(0, len(x), BLOCK), x.split(BLOCK), strict=True):
        block = kernel(part, y)
        if not with_self:
            index = torch.arange(len(part))
            block[index, index + start] = 0
        sums.append(block.sum(dim=1))
        selves.append(block.diagonal(start) if start < block.shape[1] else block[:0, 0])
    return torch.cat(sums), torch.cat(selves)


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance from each sample to its k-th nearest other one."""
    k = min(k, len(features) - 1)
    parts = [_distances(part, features).kthvalue(k + 1, dim=1).values for part in _blocks(features)]
    return torch.cat(parts)


def _inside(samples: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    parts = [(_distances(part, centres) <= radii).any(dim=1) for part in _blocks(samples)]
    return torch.cat(parts)


def _blocks(features: Tensor) -> tuple[Tensor, ...]:
    return features.split(BLOCK)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    # Exact differences: the distance of a sample to itself must be nought, not a rounding error.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
