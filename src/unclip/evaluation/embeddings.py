"""How good a prior's embeddings are: against the true z_i, text and data (§6).

Knows no prior: it compares what was drawn with what is real.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.evaluation.retrieval import ranks
from unclip.evaluation.statistics import Score, mean, share


def prior_scores(
    drawn: Float[Tensor, "n d"], real: Float[Tensor, "n d"], text: Float[Tensor, "n d"]
) -> dict[str, Score]:
    """Figures of drawn embeddings, and the same of the real ones where they have them.

    A cosine to the text above the data's own means that the prior has collapsed onto z_t.

    Args:
        drawn: embeddings a prior drew for the captions, of unit length.
        real: embeddings z_i of the captions' images, of unit length.
        text: embeddings z_t of the captions, of unit length.
    """
    n, d = drawn.shape
    drawn, real, text = drawn.double(), real.double(), text.double()
    away = real.roll(1, dims=0)
    spread = drawn.var(dim=0).sum() / real.var(dim=0).sum()
    return {
        "cosine to the true z_i": mean((drawn * real).sum(dim=1)),
        "cosine to another image's z_i": mean((drawn * away).sum(dim=1)),
        "cosine to z_t": mean((drawn * text).sum(dim=1)),
        "cosine of the true z_i to z_t": mean((real * text).sum(dim=1)),
        "mean squared error": mean((drawn - real).square().sum(dim=1) / d),
        "variance, as a share of the data's": Score(spread.item(), _spread_error(drawn, real), n),
        "rank of the true z_i, median share of all": _median_rank(drawn, real),
        "true z_i by drawn, R@1": share(ranks(drawn, real) < 1),
        "true z_i by drawn, R@10": share(ranks(drawn, real) < 10),
    }


def spectrum(embeddings: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
    """Shares of the variance along the principal directions, largest first."""
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp(min=0)
    return values / values.sum()


def effective_rank(shares: Float[Tensor, " d"]) -> float:
    """Exponential of the spectrum's entropy (Roy & Vetterli, 2007): d for a flat spectrum."""
    kept = shares[shares > 0]
    return torch.exp(-(kept * kept.log()).sum()).item()


def _median_rank(drawn: Tensor, real: Tensor) -> Score:
    """Median position of the true embedding, 0 the nearest, 1 the farthest; 0.5 by chance."""
    places = ranks(drawn, real).double() / max(len(drawn) - 1, 1)
    n = len(places)
    # Large-sample interval of a median: the order statistics √n/2 to either side.
    ordered = places.sort().values
    low, high = (int(min(max(n / 2 + side * n**0.5 / 2, 0), n - 1)) for side in (-1, 1))
    return Score(places.median().item(), ((ordered[high] - ordered[low]) / 2).item(), n)


def _spread_error(drawn: Tensor, real: Tensor) -> float:
    """Delta method for the ratio of two total variances over paired samples."""
    above = (drawn - drawn.mean(dim=0)).square().sum(dim=1)
    below = (real - real.mean(dim=0)).square().sum(dim=1)
    value = above.mean() / below.mean()
    residuals = above - value * below
    return (residuals.std(correction=0) / len(drawn) ** 0.5 / below.mean()).item()
