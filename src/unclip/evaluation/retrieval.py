"""Retrieval: does an evaluator find the right caption of an image, or the right image? (§6)

Of equally near candidates the right one comes last, so that an evaluator that sees no
difference gets nothing for it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 1024


def ranks(queries: Float[Tensor, "n d"], candidates: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """How many wrong candidates are at least as near to each query as the right one.

    Args:
        queries: embeddings of unit length, as are the candidates'.
        candidates: the right one for each query in its row, wrong ones in all others.
    """
    parts = []
    for start, part in zip(range(0, len(queries), BLOCK), queries.split(BLOCK), strict=True):
        similarity = part @ candidates.T
        right = similarity.diagonal(start)[:, None]
        parts.append((similarity >= right).sum(dim=1) - 1)
    return torch.cat(parts)


def retrieved(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "n d"], k: int = 1
) -> Bool[Tensor, " n"]:
    """Whether the candidate in the same row is among the ``k`` nearest to each query."""
    return ranks(queries, candidates) < k


def ranks_among(
    queries: Float[Tensor, "n d"], candidates: Float[Tensor, "n c d"]
) -> Int[Tensor, " n"]:
    """Like `ranks`, where each query has candidates of its own, the right one first."""
    similarity = torch.einsum("n d, n c d -> n c", queries, candidates)
    right = torch.zeros_like(similarity, dtype=torch.bool)
    right[:, 0] = True
    return best_ranks(similarity, right)


def best_ranks(similarity: Float[Tensor, "n c"], right: Bool[Tensor, "n c"]) -> Int[Tensor, " n"]:
    """How many wrong candidates are at least as near as the nearest of several right ones."""
    best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((similarity >= best) & ~right).sum(dim=1)


def preferred(
    images: Float[Tensor, "n d"], captions: Float[Tensor, "n d"], foils: Float[Tensor, "n d"]
) -> Bool[Tensor, " n"]:
    """Whether each image is nearer to its caption than to its foil."""
    return (images * captions).sum(dim=1) > (images * foils).sum(dim=1)
