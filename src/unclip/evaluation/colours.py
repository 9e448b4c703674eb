"""Colour binding read from pixels: which named colours a picture has in front and behind.

No network takes part. Knows twelve colours by name, unless it is given others.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (224, 36, 36),
    "orange": (249, 115, 22),
    "yellow": (250, 204, 21),
    "green": (22, 163, 74),
    "teal": (20, 184, 166),
    "blue": (37, 99, 235),
    "purple": (124, 58, 237),
    "pink": (236, 72, 153),
    "brown": (124, 74, 33),
    "black": (17, 17, 17),
    "white": (255, 255, 255),
    "gray": (138, 143, 152),
}
"""The colours a score names; a pixel has the nearest of these, in RGB."""

BORDER = 1 / 32
"""Share of the side, from the edge, that counts as background."""
LEAST_GLYPH = 0.01
"""Share of the pixels that must differ from the background for a glyph to be there."""

_NAMES = "|".join(COLOURS)
_BOUND = re.compile(rf"\ban? ({_NAMES}) [^,]*?\bicon on an? ({_NAMES}) background\b", re.I)


def asked_colours(caption: str) -> tuple[str, str] | None:
    """Colours of glyph and background that a caption asks for, in one sentence form.

    ``a red anchor icon on a teal background`` asks for red and teal; other captions for None.
    """
    found = _BOUND.search(caption)
    return (found[1].lower(), found[2].lower()) if found else None


def nearest_colours(
    image: UInt8[np.ndarray, "h w 3"], palette: Mapping[str, tuple[int, int, int]] = COLOURS
) -> Int[np.ndarray, "h w"]:
    """For every pixel the number of the nearest colour of the palette."""
    values = np.array(list(palette.values()), np.int32)
    return ((image[..., None, :].astype(np.int32) - values) ** 2).sum(axis=-1).argmin(axis=-1)


def colours_of(
    image: UInt8[np.ndarray, "h w 3"], palette: Mapping[str, tuple[int, int, int]] = COLOURS
) -> tuple[str | None, str]:
    """The named colours of glyph and background.

    The background is what most border pixels are nearest to; the glyph is the commonest of the
    other colours. Without enough pixels of other colours there is no glyph.
    """
    names, colours = tuple(palette), nearest_colours(image, palette)
    edge = max(1, round(BORDER * min(colours.shape)))
    border = np.ones(colours.shape, bool)
    border[edge:-edge, edge:-edge] = False
    background = np.bincount(colours[border], minlength=len(names)).argmax()
    rest = colours[colours != background]
    if len(rest) < LEAST_GLYPH * colours.size:
        return None, names[background]
    return names[np.bincount(rest, minlength=len(names)).argmax()], names[background]


def coloured(
    images: Iterable[UInt8[np.ndarray, "h w 3"]], asked: Sequence[tuple[str, str]]
) -> Bool[Tensor, "n 2"]:
    """Whether the glyph, and whether the background, of each image has the colour asked for."""
    shown = [colours_of(image) for image in images]
    return torch.tensor([(a == c, b == d) for (a, b), (c, d) in zip(shown, asked, strict=True)])
