"""unCLIP (DALL·E 2, arXiv 2204.06125): text to image through CLIP image embeddings.

>>> import unclip
>>> model = unclip.load()
>>> model.generate("a red apple")[0].save("apple.png")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unclip.diffusion.options import SamplingOptions as SamplingOptions
    from unclip.errors import UnclipError as UnclipError
    from unclip.loading import load as load
    from unclip.options import GenerateOptions as GenerateOptions
    from unclip.pipeline import Generated as Generated
    from unclip.pipeline import UnCLIP as UnCLIP

__version__ = "0.1.0"

_HOME = {
    "GenerateOptions": "unclip.options",
    "Generated": "unclip.pipeline",
    "SamplingOptions": "unclip.diffusion.options",
    "UnCLIP": "unclip.pipeline",
    "UnclipError": "unclip.errors",
    "load": "unclip.loading",
}

__all__ = ["GenerateOptions", "Generated", "SamplingOptions", "UnCLIP", "UnclipError", "load"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``unclip --help`` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'unclip' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
