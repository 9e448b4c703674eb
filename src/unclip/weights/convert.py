"""`unclip import`: a foreign checkpoint becomes a folder of ours, tensor by tensor."""

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from unclip.checkpoint import (
    STAGES,
    WEIGHTS,
    Card,
    Index,
    replacing,
    write_card,
    write_config,
    write_index,
    writing,
)
from unclip.clip.clip import Clip, ClipConfig
from unclip.config import Config
from unclip.errors import CheckpointError
from unclip.identity import ClipIdentity
from unclip.storage.cache import cache_folder
from unclip.types import finish
from unclip.weights import own
from unclip.weights.detect import detect
from unclip.weights.family import Import, Part, Reference
from unclip.weights.joined import joined, names_of
from unclip.weights.source import Source, open_source
from unclip.weights.tensors import open_tensors
from unclip.weights.writer import write_tensors

CONVERSION = 2
"""Counts up when importing the same source would give something else."""
UNREAD = (".md", ".gitattributes", ".gitignore", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".pdf")
"""Endings of files on the Hub that change nothing in a conversion but the licence on its card."""


@dataclass(frozen=True)
class Writing:
    """A part of a model that is about to be written, for progress."""

    stage: str
    """What all parts are shown as."""
    index: int
    """From 0."""
    total: int


Importing = Generator[Writing, None, Path]
"""Yields the parts, returns the folder. Closing it cancels, and leaves nothing."""


def import_source(
    source: str | Path,
    dest: Path,
    *,
    reference: Reference = "authors",
    revision: str | None = None,
    offline: bool = False,
) -> Path:
    """Convert a foreign checkpoint into a folder of ours; see `importing`."""
    return finish(importing(source, dest, reference=reference, revision=revision, offline=offline))


def importing(
    source: str | Path,
    dest: Path,
    *,
    reference: Reference = "authors",
    revision: str | None = None,
    offline: bool = False,
) -> Importing:
    """Convert a foreign checkpoint into a folder of ours, part by part.

    Args:
        source: a file, a folder or a name on the Hub, or several, joined by ``+``, of which some
            may be folders of ours.
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
    _check_free(Path(dest))
    names = names_of(str(source))
    if revision and len(names) > 1:
        raise CheckpointError("a revision is one repository's: import a single one with it")
    opened = [open_source(name, revision, offline=offline) for name in names]
    if len(opened) == 1 and not opened[0].revision and own.recognises(opened[0]):
        raise CheckpointError(f"{source} is a folder of unclip already; use it as it is")
    return (yield from write_import(joined([plan(one, reference) for one in opened]), dest))


def imported(source: str | Path) -> Importing:
    """A foreign checkpoint as a folder of ours in the user's cache, converted when first asked for.

    The folder is found again by what the files on the Hub hold, or by the names, sizes and times
    of local files. Without a network it is found by the commits it was seen for.

    Raises:
        CheckpointError: as `import_source`.
    """
    opened = [open_source(name) for name in names_of(str(source))]
    name = "+".join(one.origin for one in opened).replace("/", "--")
    at_commits = cache_folder() / f"{name}-{_key(opened, contents=False)}"
    if at_commits.is_dir():
        return at_commits
    folder, note = at_commits, at_commits.with_name(at_commits.name + ".txt")
    if all(one.contents is not None for one in opened if one.revision):
        folder = cache_folder() / f"{name}-{_key(opened, contents=True)}"
    elif note.is_file():
        folder = cache_folder() / note.read_text(encoding="utf-8")
    if not folder.is_dir():
        yield from write_import(joined([plan(one) for one in opened]), folder)
    if folder != at_commits and not note.is_file():
        with writing(note):
            note.write_text(folder.name, encoding="utf-8")
    return folder


def plan(source: Source, reference: Reference = "authors") -> Import:
    """What importing a source would give; no weights are read."""
    return detect(source).plan(source, reference)


def write_import(imported: Import, dest: Path) -> Importing:
    """Write all parts beside ``dest`` and rename.

    Raises:
        CheckpointError: as `import_source`.
    """
    dest = Path(dest)
    _check_free(dest)
    identity = None
    with replacing(dest) as beside:
        count = len(imported.parts)
        if count == 1:
            yield Writing("converting", 0, 1)
            _write_part(imported.parts[0], beside, None, imported.card)
            write_card(beside, imported.card)
            return dest
        # CLIP first: the others record which one they belong to.
        parts = sorted(imported.parts, key=lambda part: part.name != "clip")
        for number, part in enumerate(parts):
            yield Writing("converting", number, count)
            identity = _write_part(part, beside / part.name, identity, imported.card) or identity
        index = Index(defaults=imported.defaults, card=imported.card)
        for part in imported.parts:
            index = index.naming(part.name)
        write_index(beside, index)
    return dest


def _write_part(
    part: Part, folder: Path, clip: ClipIdentity | None, card: Card
) -> ClipIdentity | None:
    """Write a stage folder; returns its identity if it is a CLIP."""
    folder.mkdir(exist_ok=True)
    if part.save_extras is not None:
        part.save_extras(folder)
    stage = part.name.split("-")[0]
    shapes = _shapes(stage, part.config, folder)
    config: Any = part.config
    identity = None
    tensors = chain(part.tensors(), part.after(folder.parent) if part.after else ())
    write_tensors(folder / WEIGHTS, shapes, tensors, name=card.name)
    if isinstance(config, ClipConfig):
        identity = config.identified(open_tensors([folder / WEIGHTS]).items())
        config = config.model_copy(update={"identity": identity})
    elif clip is not None and "clip" in type(config).model_fields:
        config = config.model_copy(update={"clip": clip.completed(config.clip)})
    write_config(folder, stage, config)
    return identity


def _shapes(stage: str, config: Config, folder: Path) -> dict[str, tuple[int, ...]]:
    """All tensors a stage of this config has."""
    build = STAGES[stage][0]
    with torch.device("meta"):
        empty = (
            Clip.from_config(config, folder) if isinstance(config, ClipConfig) else build(config)
        )
    return {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}


def _check_free(dest: Path) -> None:
    if os.path.lexists(dest):
        raise CheckpointError(f"{dest} exists and is never overwritten; choose another name")


def _key(sources: Sequence[Source], *, contents: bool) -> str:
    """Digest of what is converted: files on the Hub by their contents, or else by their commit."""
    facts: list[Any] = [CONVERSION]
    for source in sources:
        facts.append(source.origin)
        if not source.revision:
            for path in map(source.path, source.files):
                facts.append([str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns])
        elif contents and source.contents is not None:
            held = source.contents.items()
            facts.append(sorted(item for item in held if not item[0].endswith(UNREAD)))
        else:
            facts.append(source.revision)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
