"""A name or a folder -> the pipeline."""

from collections.abc import Generator
from importlib.resources import files
from pathlib import Path
from typing import Any

from unclip.checkpoint import INDEX, Residency, is_stage, load_pipeline
from unclip.errors import CheckpointError
from unclip.pipeline import UnCLIP
from unclip.runtime import Runtime
from unclip.types import finish
from unclip.weights.source import looks_like_hub

DEFAULT = "emoji"
RESIDENCY: dict[bool | None, Residency] = {None: "auto", True: "one", False: "all"}
"""By whether the caller wants to save memory; None: has not said."""


def load(
    model: str | Path = DEFAULT, runtime: Runtime | None = None, residency: Residency = "auto"
) -> UnCLIP:
    """Open a model.

    Args:
        model: the name of a model that ships with the package, a model folder, or a published
            model by its file, folder or name on the Hub: see `find`.
        runtime: device, dtype and memory format; what suits the machine if not given.
        residency: ``"all"`` keeps every stage in memory once used, ``"one"`` only the one at
            work, which then is the peak of memory; ``"auto"`` keeps all if they take 2 GiB or less.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
    """
    folder = find(model)
    if is_stage(folder):
        raise CheckpointError(f"{model} is a single network, which draws nothing by itself")
    return load_pipeline(folder, runtime, residency)


def find(model: str | Path) -> Path:
    """The folder of a model given by name or path.

    A published model, other people's, is converted into the user's cache when it is first asked
    for; `unclip import` does so into a folder of one's own.

    Returns:
        A model folder; of a published single network, such as a CLIP, its stage folder.

    Raises:
        CheckpointError: neither a model nor the name of one, or it cannot be fetched.
    """
    return finish(finding(model))


def finding(model: str | Path) -> Generator[Any, None, Path]:
    """As `find`, in steps: yields the parts of a published model while it is converted."""
    if (Path(model) / INDEX).is_file() or is_stage(Path(model)):
        return Path(model)
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    source = in_full(str(model))
    parts = [source] if Path(source).exists() else source.split("+")
    if all(Path(part).exists() or looks_like_hub(part) for part in parts):
        from unclip.weights.convert import imported

        return (yield from imported(source))
    names = ", ".join(known) or "none"
    raise CheckpointError(
        f"there is no model {str(model)!r}: give a model folder, a shipped model ({names}) "
        "or owner/name of one on the Hub"
    )


def in_full(source: str) -> str:
    """What is to be imported, ``A+B``, with names of shipped models replaced by their folders."""
    if Path(source).exists():
        return source
    known = shipped()
    return "+".join(str(known.get(part.strip(), part)) for part in source.split("+"))


def shipped() -> dict[str, Path]:
    """Models that come with the package, by name."""
    root = Path(str(files("unclip"))) / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{INDEX}"))}
