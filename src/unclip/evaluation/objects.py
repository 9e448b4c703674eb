"""Several things in one picture: two side by side, each judged in its half; copies, counted.

Two-object relations are judged without a grammar: whoever drew the right noun in each half drew
the relation. Counting is done on pixels.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image
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
SPECK = 0.002
"""Share of the picture below which a patch is no part of a thing."""
MARGIN = 0.06
"""Share of a thing's size that a close-up shows around it."""
LIKE = 0.3
"""Share of the largest patch that another thing has at least."""


def halves(image: Pixels, relation: Relation) -> tuple[Pixels, Pixels]:
    """The half of the first thing and that of the second, each with the other one painted over.

    Both keep the picture's size; the paint is the commonest colour of the picture's border.
    """
    paint = _border_colour(image)
    first, second = image.copy(), image.copy()
    middle = image.shape[1 if relation == "left" else 0] // 2
    if relation == "left":
        first[:, middle:], second[:, :middle] = paint, paint
    else:
        first[middle:], second[:middle] = paint, paint
    return first, second


def close_up(image: Pixels) -> Pixels:
    """A square around everything that is not background, enlarged to the picture's size.

    Evaluators know things that fill a picture better than small ones. Specks are left out; of a
    picture without any thing nothing is cut.
    """
    labels = _components(_mask(image))
    found, sizes = labels[labels > 0].unique(return_counts=True)
    kept = torch.isin(labels, found[sizes >= SPECK * labels.numel()])
    if not kept.any():
        return image
    rows, columns = kept.any(dim=1).nonzero(), kept.any(dim=0).nonzero()
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    extent = int(max(bottom - top, right - left))
    side = extent + 2 * math.ceil(MARGIN * extent)
    middle = int(top + bottom) / 2, int(left + right) / 2
    y, x = (round(centre - side / 2) for centre in middle)
    canvas = Image.new("RGB", (side, side), tuple(_border_colour(image).tolist()))
    canvas.paste(Image.fromarray(image), (-x, -y))
    return np.asarray(canvas.resize(image.shape[1::-1], Image.Resampling.BICUBIC))


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


def counted(image: Pixels) -> int:
    """Number of separate things of like size on a plain background.

    A patch counts if it is no speck and has a good share of the largest one's pixels, so that a
    dot beside a thing is not another thing.
    """
    mask = _mask(image)
    found, sizes = _components(mask)[mask].unique(return_counts=True)
    if not len(found):
        return 0
    least = max(SMALLEST * mask.numel(), LIKE * int(sizes.max()))
    return int((sizes >= least).sum())


def right_counts(images: Iterable[Pixels], asked: Sequence[int]) -> Bool[Tensor, " n"]:
    """Whether each picture shows as many things as asked for."""
    return torch.tensor([counted(i) == number for i, number in zip(images, asked, strict=True)])


def _mask(image: Pixels) -> Bool[Tensor, "h w"]:
    """Pixels that are not background."""
    difference = np.abs(image.astype(np.int32) - _border_colour(image).astype(np.int32))
    return torch.from_numpy((difference > DIFFERENT).any(axis=2))


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
