"""What unCLIP can do with images that are there (§2): one file a manipulation.

All take a model and pictures, and are generators of `Step` that return `Made`. Torch is imported
with the functions, not with the options.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Decode": "options",
    "Edit": "options",
    "Inpaint": "options",
    "Interpolate": "options",
    "Mix": "options",
    "Reconstruct": "options",
    "Sweep": "options",
    "Upscale": "options",
    "Vary": "options",
    "Made": "made",
    "again": "replay",
    "decode": "embeddings",
    "edit": "text_diff",
    "embed": "embeddings",
    "inpaint": "inpainting",
    "interpolate": "interpolations",
    "mix": "mixing",
    "reconstruct": "reconstruction",
    "sweep": "sweeps",
    "upscale": "upscaling",
    "vary": "variations",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'unclip.manipulation' has no attribute {name!r}")
    return getattr(import_module(f"unclip.manipulation.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
