"""The manipulations by name: what a recipe or a sweep asks for."""

from collections.abc import Callable
from dataclasses import dataclass

from unclip.config import Config
from unclip.manipulation.embeddings import decode
from unclip.manipulation.inpainting import inpaint
from unclip.manipulation.interpolations import interpolate
from unclip.manipulation.made import Making
from unclip.manipulation.mixing import mix
from unclip.manipulation.options import (
    Decode,
    Edit,
    Inpaint,
    Interpolate,
    Mix,
    Reconstruct,
    Upscale,
    Vary,
)
from unclip.manipulation.reconstruction import reconstruct
from unclip.manipulation.text_diff import edit
from unclip.manipulation.upscaling import upscale
from unclip.manipulation.variations import vary
from unclip.options import (
    Drawing,
    DrawingBetween,
    DrawingSeveral,
    DrawingSquares,
    Enlarging,
    GenerateOptions,
    Repainting,
    Seeded,
)


@dataclass(frozen=True)
class Command:
    """A manipulation."""

    how: type[Config]
    make: Callable[..., Making]
    """``(model, *items, how=..., options=...)``."""
    options: type[Seeded]
    """Those that act on what it draws."""


COMMANDS = {
    "vary": Command(Vary, vary, DrawingSeveral),
    "interpolate": Command(Interpolate, interpolate, DrawingBetween),
    "mix": Command(Mix, mix, GenerateOptions),
    "edit": Command(Edit, edit, DrawingSquares),
    "inpaint": Command(Inpaint, inpaint, Repainting),
    "upscale": Command(Upscale, upscale, Enlarging),
    "reconstruct": Command(Reconstruct, reconstruct, Drawing),
    "decode": Command(Decode, decode, DrawingSeveral),
}
