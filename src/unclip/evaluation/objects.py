"""Several things in one picture: two side by side, each judged in its half; copies, counted.

Two-object relations are judged without a grammar: whoever drew the right noun in each half drew
the relation. Counting is done on pixels.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from unclip.evaluation.retrieval import ranks_among

Relation = Literal["left", "above"]
"""Where the first of two things stands."""

Pixels = UInt8[np.ndarray, "h w 3"]

DIFFERENT = 40
"""Levels of any channel that a pixel of a thing differs from the background."""
SMALLEST = 0.01
"""Share of the picture below which a patch is dirt."""


def halves(image: Pixels, relation: Relation) -> tuple[Pixels, Pixels]:
    """The half of the first thing and that of the second, each with the other one painted over.

    Both keep the picture's size, so that things stay as large as an evaluator knows them; the
    paint is the commonest colour of the picture's border.
    """
    paint = _border_colour(image)
    first, second = image.copy(), image.copy()
    middle = image.shape[1 if relation == "left" else 0] // 2
    if relation == "left":
        first[:, middle:], second[:, :middle] = paint, paint
    else:
        first[middle:], second[:middle] = paint, paint
    return first, second


def both_named(
    first: Float[Tensor, "n d"],
    second: Float[Tensor, "n d"],
    nouns: tuple[Float[Tensor, "n c d"], Float[Tensor, "n c d"]],
    k: int = 5,
) -> Bool[Tensor, " n"]:
    """Whether the evaluator finds each half's noun among the ``k`` nearest of its candidates.

    Args:
        first: embeddings of the halves of the first thing, of unit length.
        second: those of the second.
        nouns: for the first and for the second half embedded candidate nouns, the right one
            first.
        k: how many may be shown.
    """
    one, two = ranks_among(first, nouns[0]), ranks_among(second, nouns[1])
    return (one < k) & (two < k)


def counted(image: Pixels, reach: int = 1) -> int:
    """Number of separate things on a plain background.

    Args:
        image: the picture.
        reach: parts at most twice this many pixels apart (of 64) are one thing.
    """
    difference = np.abs(image.astype(np.int32) - _border_colour(image).astype(np.int32))
    mask = torch.from_numpy((difference > DIFFERENT).any(axis=2))
    reach = max(1, round(reach * min(mask.shape) / 64))
    grown = functional.max_pool2d(mask[None].float(), 2 * reach + 1, stride=1, padding=reach)[
        0
    ].bool()
    labels = _components(grown)
    found, sizes = labels[mask].unique(return_counts=True)
    return int((sizes[found > 0] >= SMALLEST * mask.numel()).sum())


def right_counts(images: Sequence[Pixels], asked: Sequence[int]) -> Bool[Tensor, " n"]:
    """Whether each picture shows as many things as asked for."""
    return torch.tensor([counted(i) == number for i, number in zip(images, asked, strict=True)])


def _components(mask: Bool[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    """Number the connected patches of a mask: each pixel takes the largest number around it."""
    labels = torch.arange(1, mask.numel() + 1).view(mask.shape).double() * mask
    while True:
        spread = functional.max_pool2d(labels[None], 3, stride=1, padding=1)[0] * mask
        if torch.equal(spread, labels):
            return labels.long()
        labels = spread


def _border_colour(image: Pixels) -> UInt8[np.ndarray, " 3"]:
    edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    colours, counts = np.unique(edges // 8, axis=0, return_counts=True)
    near = (edges // 8 == colours[counts.argmax()]).all(axis=1)
    return np.median(edges[near], axis=0).astype(np.uint8)
