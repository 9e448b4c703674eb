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


@dataclass(frozen=True)
class Command:
    """A manipulation."""

    how: type[Config]
    make: Callable[..., Making]
    """``(model, *items, how=..., options=...)``."""


COMMANDS = {
    "vary": Command(Vary, vary),
    "interpolate": Command(Interpolate, interpolate),
    "mix": Command(Mix, mix),
    "edit": Command(Edit, edit),
    "inpaint": Command(Inpaint, inpaint),
    "upscale": Command(Upscale, upscale),
    "reconstruct": Command(Reconstruct, reconstruct),
    "decode": Command(Decode, decode),
}
