"""Folders of ours as a source: what is imported or trained here joins with other sources."""

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from torch import Tensor

from unclip.checkpoint import (
    CARD,
    CONFIG,
    INDEX,
    WEIGHTS,
    Card,
    Index,
    read_card,
    read_config,
    read_index,
)
from unclip.clip.clip import TOKENIZER
from unclip.options import GenerateOptions
from unclip.weights.family import Family, Import, Part, Reference
from unclip.weights.joined import sampling_of
from unclip.weights.source import Source


def recognises(source: Source) -> bool:
    """Whether it is a model or the folder of a stage, as this program writes them."""
    return source.has(INDEX) or source.has(CONFIG, WEIGHTS)


def plan(source: Source, _: Reference) -> Import:
    """All stages; of a single one that lies in a model, the model's card and its sampling.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    if not source.has(INDEX):
        part = _part(source, "")
        card, defaults = _around(source, part.name)
        return Import([part], _described(source, card), defaults)
    index = read_index(source.path(INDEX).parent)
    parts = [_part(source, f"{name}/") for name in index.folders()]
    return Import(parts, _described(source, index.card), index.defaults)


FAMILY = Family("unclip", recognises, plan)


def _part(source: Source, folder: str) -> Part:
    path = source.path(folder + CONFIG)
    stage, config = read_config(path.parent)
    name = f"{stage}-{config.high}" if stage == "upsampler" else stage

    def tensors() -> Iterator[tuple[str, Tensor]]:
        return iter(source.tensors(folder + WEIGHTS).items())

    words = folder + TOKENIZER
    extras = partial(_copy, source.path(words)) if source.has(words) else None
    return Part(name, config, tensors, save_extras=extras)


def sampling_around(folder: Path, stage: str) -> GenerateOptions | None:
    """How the model in which a stage lies samples it; None for a stage that lies in none."""
    index = _index_around(folder)
    return None if index is None else sampling_of(stage, index.defaults)


def _index_around(folder: Path) -> Index | None:
    folder = folder.resolve()
    if not (folder.parent / INDEX).is_file():
        return None
    index = read_index(folder.parent)
    return index if folder.name in index.folders() else None


def _around(source: Source, stage: str) -> tuple[Card, GenerateOptions]:
    """The card of a lone stage; if it lies in a model, that one's, and how it samples the stage."""
    folder = source.path(CONFIG).parent
    index = None if source.has(CARD) else _index_around(folder)
    if index is not None:
        return index.card, sampling_of(stage, index.defaults)
    return read_card(folder), GenerateOptions()


def _described(source: Source, card: Card) -> Card:
    """The card, with what a model of one's own does not say of itself."""
    known = {"name": card.name if card.name != Card().name else source.origin}
    known |= {"source": card.source or source.origin, "family": card.family or FAMILY.name}
    return card.model_copy(update=known)


def _copy(file: Path, folder: Path) -> None:
    shutil.copyfile(file, folder / file.name)
