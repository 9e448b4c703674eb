"""What a family of published checkpoints is to `unclip import`: the types every family fills in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from unclip.checkpoint import Card
from unclip.config import Config
from unclip.options import GenerateOptions
from unclip.weights.source import Source

Reference = Literal["authors", "diffusers"]
"""Whose behaviour to follow where the authors' code and its diffusers port differ."""


@dataclass(frozen=True)
class Part:
    """One stage of ours, as it comes out of a source."""

    name: str
    """Its folder: clip, prior, decoder, upsampler-256, ..."""
    config: Config
    """Of the stage."""
    tensors: Callable[[], Iterator[tuple[str, Tensor]]]
    """All tensors of the stage's state dict by name, in any order, one at a time."""
    save_extras: Callable[[Path], None] | None = None
    """Writes what else the stage's folder holds, such as the tokenizer."""
    after: Callable[[Path], Iterator[tuple[str, Tensor]]] | None = None
    """Tensors that are computed from the model's CLIP. The folder given is the model's, in which
    the CLIP lies already, if it has one; it may come from another source."""


@dataclass(frozen=True)
class Import:
    """All that a source gives."""

    parts: list[Part]
    card: Card
    defaults: GenerateOptions = field(default_factory=GenerateOptions)
    """Sampling defaults of the model; set fields only are stored."""


@dataclass(frozen=True)
class Family:
    """A kind of published checkpoint."""

    name: str
    """As in `unclip info`: karlo-authors, clip-openai, ..."""
    recognises: Callable[[Source], bool]
    """Whether a source is of this family, judged by file names, configs and tensor names."""
    plan: Callable[[Source, Reference], Import]
    """What to make of it; reads configs and shapes, no weights."""
