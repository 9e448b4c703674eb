"""What the stages hand each other, and the legend of axes.

Axes in shape annotations, everywhere in the package:

    b  batch                      c h w  channels, height, width of an image
    d  CLIP embedding             n      CLIP text tokens (context 77 in public CLIP)
    f  width of CLIP text states  m      caption-encoder tokens (context 256 in the paper)
"""

from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from unclip.randomness import Randomness

T = TypeVar("T", bound="_Tensors")


class _Tensors:
    """Moves and indexes every tensor field of a frozen dataclass at once."""

    def _map(self: T, change: Any) -> T:
        changed = {
            field.name: change(value)
            for field in fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, field.name), (Tensor, _Tensors))
        }
        return replace(self, **changed)  # type: ignore[type-var]

    def to(self: T, device: torch.device | str) -> T:
        """Move every tensor to ``device``."""
        return self._map(lambda value: value.to(device))


@dataclass(frozen=True)
class TextFeatures(_Tensors):
    """What the text side knows of a batch of captions.

    It carries both contexts: CLIP's own tokens, as hidden states, and the token ids of the
    decoder's caption encoder, which reads further (§1.5: 256 tokens against CLIP's 77).
    """

    embedding: Float[Tensor, "b d"]
    """Text embedding z_t, of unit length for our own CLIP."""
    states: Float[Tensor, "b n f"]
    """Last hidden states of CLIP's text tower, after the final LayerNorm."""
    mask: Bool[Tensor, "b n"]
    """True at real tokens, [SOT] and [EOT] included."""
    caption: Int[Tensor, "b m"]
    """Token ids for the caption encoder, 0 at padding."""
    caption_mask: Bool[Tensor, "b m"]
    """True at real tokens of ``caption``."""

    def __len__(self) -> int:
        return len(self.embedding)

    def take(self, index: Int[Tensor, " k"]) -> "TextFeatures":
        """The captions at ``index``, in that order; repeats are allowed."""
        return self._map(lambda value: value[index.to(value.device)])

    def trimmed(self) -> "TextFeatures":
        """The same without CLIP's padding behind the longest caption, which nothing attends to."""
        longest = int(self.mask.sum(dim=1).max())
        return replace(self, states=self.states[:, :longest], mask=self.mask[:, :longest])


@dataclass(frozen=True)
class Batch(_Tensors):
    """A batch of training data. Fields a stage does not need may be missing."""

    keys: tuple[str, ...]
    """Where each sample comes from: what an error names."""
    images: Float[Tensor, "b 3 h w"] | None = None
    """Images in [-1, 1]."""
    captions: tuple[str, ...] | None = None
    text: TextFeatures | None = None
    image_embedding: Float[Tensor, "b d"] | None = None
    """Image embedding z_i."""

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class Step:
    """One step of a sampler, for progress and previews."""

    stage: str
    """Who is sampling: ``prior``, ``decoder``, ``upsampler 256``."""
    index: int
    """From 0."""
    total: int
    sample: Float[Tensor, "b ..."]
    """x_t after this step."""
    x0: Float[Tensor, "b ..."]
    """The clean sample as estimated at this step."""


Sampling = Generator[Step, None, Tensor]
"""A sampler: yields its steps, returns the finished sample. Closing it cancels."""

Losses = dict[str, Tensor]
"""Scalars; ``loss`` is the one to minimise, the others are parts worth logging."""


def finish(sampling: Generator[Any, None, Any]) -> Any:
    """Run a sampler, or anything else that yields its steps, to its end; return its result."""
    while True:
        try:
            next(sampling)
        except StopIteration as stop:
            return stop.value


@runtime_checkable
class Stage(Protocol):
    """The contract of every trained stage: network + diffusion + conditioning.

    Calling a stage gives the losses of a batch. ``randomness`` supplies everything the loss
    draws (noise levels, noise, dropped conditions, corruptions); dropout layers alone use
    torch's global generator.
    """

    name: ClassVar[str]
    """Folder in a model; upsamplers add the size they draw."""
    needs: ClassVar[frozenset[str]]
    """Fields of `Batch` that it is trained on."""
    config: Any
    network: torch.nn.Module

    def __call__(self, batch: Batch, randomness: Randomness) -> Losses:
        """Losses of a batch, averaged over it."""
        ...
