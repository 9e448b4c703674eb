"""What a dataset is to the loader: samples found by index, or a stream of them.

Knows nothing of files, shuffling, tensors or training. A source of your own needs `Source`
only; `BatchSource` is its fast path for images that are composed instead of read.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8

from unclip.errors import DataError, ImageError
from unclip.images import decode

Pixels = UInt8[np.ndarray, "h w 3"]
"""One RGB image, values 0 to 255."""


class BadSample(DataError):  # noqa: N818  it names what the sample is, as StopIteration does
    """A sample that cannot be used; the loader counts it, logs it and takes another.

    Args:
        key: the sample's name, as the log should show it.
        reason: a short fixed phrase that skips are counted by, such as ``corrupt image``.
        detail: what else there is to say of this one sample.
    """

    def __init__(self, key: str, reason: str, detail: str = "") -> None:
        super().__init__(key, reason, detail)
        self.key, self.reason, self.detail = key, reason, detail

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}" + (f" ({self.detail})" if self.detail else "")


@dataclass(frozen=True)
class Sample:
    """One captioned image. The picture is decoded only when somebody asks for `image`."""

    key: str
    """Where the sample comes from: a path below the dataset, or ``shard.tar/name``."""
    captions: tuple[str, ...]
    """One or several; the loader shows one of them per epoch."""
    picture: Pixels | bytes | Path
    """Pixels, the bytes of an image file, or its path."""
    embedding: Float[np.ndarray, " d"] | None = None
    """Cached CLIP image embedding z_i, if the source has one."""

    def image(self) -> Pixels:
        """Return the pixels, decoding if need be.

        Raises:
            BadSample: the picture cannot be decoded.
        """
        if isinstance(self.picture, np.ndarray):
            return self.picture
        try:
            return np.array(decode(self.picture))
        except ImageError as error:
            raise BadSample(self.key, "corrupt image", str(error)) from error


@runtime_checkable
class Source(Protocol):
    """Samples that are found by index, cheaply and in any order.

    `sample` must depend on the index alone (never on earlier calls), and a source must pickle,
    since loader workers are processes.
    """

    def __len__(self) -> int: ...

    def sample(self, index: int) -> Sample:
        """Return the sample at ``index`` in ``[0, len)``.

        Raises:
            BadSample: this one cannot be used.
        """
        ...


class Composed(NamedTuple):
    """A batch of equally large images with one caption each."""

    images: UInt8[np.ndarray, "b h w 3"] | UInt8[torch.Tensor, "b h w 3"]
    """Values 0 to 255; a tensor may live on any device, the batch is then made there."""
    captions: tuple[str, ...]
    keys: tuple[str, ...]


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that makes a whole batch at once, as array operations, and never fails.

    Scenes composed by index belong here. The length may be as large as 2**62: the order of an
    epoch is computed, not stored, so recombination can be practically unlimited. `sample` is
    still there for tools that look at single samples.
    """

    def batch(self, indices: Sequence[int]) -> Composed:
        """Return the samples at ``indices``, in that order; each depends on its index alone."""
        ...


class Streamed(NamedTuple):
    """One item of a stream. Unusable samples are items too: they keep their place."""

    epoch: int
    sample: Sample | BadSample


@runtime_checkable
class StreamSource(Protocol):
    """Samples that can only be read one after the other, such as shards behind a URL."""

    def stream(self, seed: int, start: int = 0) -> Generator[Streamed, None, None]:
        """Yield epoch after epoch without end, in an order that depends on ``seed`` alone.

        The first ``start`` items are left out, as cheaply as the source can.

        Raises:
            DataError: an epoch had no usable sample.
        """
        ...
