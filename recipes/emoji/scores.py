"""What the evaluation counts: retrieval by an evaluator, and colours read from pixels.

Every score is a mean over samples with its standard error. Knows no models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from splits import COLOURS

Hits = Bool[np.ndarray, " n"]

BORDER = 2
"""Pixels from the edge that count as background."""
LEAST_GLYPH = 0.01
"""Share of the pixels that must differ from the background for a glyph to be there."""

_NAMES = tuple(COLOURS)
_VALUES = np.array(list(COLOURS.values()), np.int32)


@dataclass(frozen=True)
class Score:
    """A mean over ``n`` samples."""

    value: float
    standard_error: float
    n: int


def share(hits: Hits) -> Score:
    """The share of samples that are right."""
    n, value = len(hits), float(hits.mean())
    return Score(value, sqrt(value * (1 - value) / n), n)


def share_of(hits: Hits, reference: Hits) -> Score:
    """Hits as a share of the hits that a reference has on the same samples.

    The standard error is that of a ratio of paired means (delta method). Without a single hit of
    the reference there is no ratio: NaN.
    """
    n = len(hits)
    if not reference.any():
        return Score(float("nan"), float("nan"), n)
    ratio = hits.mean() / reference.mean()
    residuals = hits - ratio * reference
    return Score(float(ratio), float(residuals.std() / sqrt(n) / reference.mean()), n)


def retrieved(
    queries: Float[np.ndarray, "n d"], candidates: Float[np.ndarray, "n d"], k: int = 1
) -> Hits:
    """Whether the candidate in the same row is among the ``k`` nearest to each query.

    Args:
        queries: embeddings of unit length, as are the candidates'.
        candidates: the right one for each query in its row, wrong ones in all others.
        k: how many may be shown. Of equally near candidates the right one comes last, so that
            an evaluator that sees no difference gets nothing for it.
    """
    similarity = queries @ candidates.T
    right = np.diag(similarity)[:, None]
    others = ~np.eye(len(queries), dtype=bool)
    return ((similarity >= right) & others).sum(axis=1) < k


def preferred(
    images: Float[np.ndarray, "n d"],
    captions: Float[np.ndarray, "n d"],
    foils: Float[np.ndarray, "n d"],
) -> Hits:
    """Whether each image is nearer to its caption than to its foil."""
    return (images * captions).sum(axis=1) > (images * foils).sum(axis=1)


def nearest_colours(image: UInt8[np.ndarray, "h w 3"]) -> Int[np.ndarray, "h w"]:
    """For every pixel the number of the nearest of the twelve named colours, in RGB."""
    difference = image[..., None, :].astype(np.int32) - _VALUES
    return (difference**2).sum(axis=-1).argmin(axis=-1)


def colours_of(image: UInt8[np.ndarray, "h w 3"]) -> tuple[str | None, str]:
    """The named colours of glyph and background.

    The background is what most border pixels are nearest to; the glyph is the commonest of the
    other colours. Without enough pixels of other colours there is no glyph.
    """
    colours = nearest_colours(image)
    border = np.ones(colours.shape, bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    background = np.bincount(colours[border], minlength=len(_NAMES)).argmax()
    rest = colours[colours != background]
    if len(rest) < LEAST_GLYPH * colours.size:
        return None, _NAMES[background]
    return _NAMES[np.bincount(rest, minlength=len(_NAMES)).argmax()], _NAMES[background]


def coloured(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], asked: Sequence[tuple[str, str]]
) -> Bool[np.ndarray, "n 2"]:
    """Whether the glyph, and whether the background, of each image has the colour asked for."""
    shown = [colours_of(image) for image in images]
    return np.array([(a == c, b == d) for (a, b), (c, d) in zip(shown, asked, strict=True)])
