"""One tensor of a file, by its place: what it is, and how its bytes are read.

Bytes are read rather than mapped: pages of a mapped file count as memory of the process.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from unclip.errors import CheckpointError


@runtime_checkable
class Entry(Protocol):
    """A tensor that can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""

    def read(self) -> Tensor:
        """A contiguous copy on the CPU, of nobody else."""


@contextmanager
def opened(file: Path) -> Iterator[FileIO]:
    """Open a file for reading, without a buffer.

    Raises:
        CheckpointError: it is not there, or cannot be read.
    """
    try:
        with file.open("rb", buffering=0) as stream:
            yield stream
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a file as plain bytes."""

    file: Path
    start: int
    """Byte in the file at which its first element lies."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    stride: tuple[int, ...] | None = None
    """In elements; rows first if not given."""

    @property
    def length(self) -> int:
        """Bytes from its first element to its last."""
        span = prod(self.shape)
        if self.stride is not None and span:
            span = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        return span * self.dtype.itemsize

    def read(self, scratch: Tensor | None = None) -> Tensor:
        """Read its bytes alone.

        Args:
            scratch: bytes to read into, if they suffice; the result is then a view of them.
        """
        length = self.length
        if scratch is None or len(scratch) < length:
            scratch = torch.empty(length, dtype=torch.uint8)
        self._fill(scratch[:length])
        flat = scratch[:length].view(self.dtype)
        if self.stride is None or not length:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.stride).contiguous()

    def _fill(self, raw: Tensor) -> None:
        with opened(self.file) as stream:
            held = os.fstat(stream.fileno()).st_size - self.start
            if held < len(raw):
                raise CheckpointError(
                    f"{self.file} is damaged: {len(raw) - held} bytes of a tensor are missing; "
                    "fetch it again"
                )
            view = memoryview(raw.numpy())  # type: ignore[arg-type]
            stream.seek(self.start)
            while view and (read := stream.readinto(view)):
                view = view[read:]


@dataclass(frozen=True)
class Held:
    """A tensor that is in memory already."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> torch.dtype:
        """As held."""
        return self.tensor.dtype

    def read(self) -> Tensor:
        """Copy it."""
        return self.tensor.detach().clone(memory_format=torch.contiguous_format)
