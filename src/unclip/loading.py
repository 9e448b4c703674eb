"""A name or a folder -> the pipeline."""

from importlib.resources import files
from pathlib import Path

from unclip.checkpoint import INDEX, Residency, load_pipeline
from unclip.errors import CheckpointError
from unclip.pipeline import UnCLIP
from unclip.runtime import Runtime

DEFAULT = "emoji"


def load(
    model: str | Path = DEFAULT, runtime: Runtime | None = None, residency: Residency = "all"
) -> UnCLIP:
    """Open a model.

    Args:
        model: the name of a model that ships with the package, or a model folder.
        runtime: device, dtype and memory format; what suits the machine if not given.
        residency: ``"all"`` keeps every stage in memory once used, ``"one"`` only the one at
            work, which then is the peak of memory.

    Raises:
        CheckpointError: there is no such model, or it is damaged.
    """
    return load_pipeline(find(model), runtime, residency)


def find(model: str | Path) -> Path:
    """The folder of a model given by name or path.

    Raises:
        CheckpointError: neither a folder with a model in it nor a known name.
    """
    if (Path(model) / INDEX).is_file():
        return Path(model)
    known = shipped()
    if str(model) in known:
        return known[str(model)]
    if Path(model).is_dir():
        raise CheckpointError(f"{model} is a folder, but no model: it has no {INDEX}")
    names = ", ".join(known) or "none"
    raise CheckpointError(
        f"there is no model {str(model)!r}: give a model folder, or a shipped model ({names})"
    )


def shipped() -> dict[str, Path]:
    """Models that come with the package, by name."""
    root = Path(str(files("unclip"))) / "models"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{INDEX}"))}
