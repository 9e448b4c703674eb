"""`unclip import`: a foreign checkpoint becomes a folder of ours, tensor by tensor."""

from pathlib import Path

from unclip.weights.detect import detect
from unclip.weights.family import Import, Reference
from unclip.weights.source import Source, open_source


def import_source(
    source: str | Path,
    dest: Path,
    *,
    reference: Reference = "authors",
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """Convert a foreign checkpoint into a folder of ours.

    Args:
        source: a file, a folder or a name on the Hub.
        dest: the folder to write; it must not exist.
        reference: whose behaviour to follow where the authors' code and diffusers differ.
        revision: branch, tag or commit on the Hub.
        offline: use the Hub's cache alone.

    Returns:
        ``dest``: a model folder, or a stage folder where the source is a single network.

    Raises:
        CheckpointError: the source is not found, not known, damaged, or has a tensor too many
            or too few; or ``dest`` cannot be written. Nothing is left half-written.
    """
    opened = open_source(str(source), revision, offline=offline)
    return write_import(plan(opened, reference), dest)


def plan(source: Source, reference: Reference = "authors") -> Import:
    """What importing a source would give; no weights are read."""
    return detect(source).plan(source, reference)


def write_import(imported: Import, dest: Path) -> Path:
    """Write all parts beside ``dest``, check them, and rename."""
    raise NotImplementedError
