"""One tensor of a file, by its place: what it is, and how its bytes are read.

Bytes are read rather than mapped: pages of a mapped file count as memory of the process.
"""

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from unclip.errors import CheckpointError


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

    def read(self) -> Tensor:
        """Read its bytes alone."""
        span = prod(self.shape)
        if self.stride is not None and span:
            span = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        flat = self._bytes(span * self.dtype.itemsize).view(self.dtype)
        if self.stride is None or not span:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.stride).contiguous()

    def _bytes(self, length: int) -> Tensor:
        try:
            with self.file.open("rb", buffering=0) as stream:
                held = os.fstat(stream.fileno()).st_size - self.start
                if held < length:
                    raise CheckpointError(
                        f"{self.file} is damaged: {length - held} bytes of a tensor are missing; "
                        "fetch it again"
                    )
                raw = torch.empty(length, dtype=torch.uint8)
                view = memoryview(raw.numpy())  # type: ignore[arg-type]
                stream.seek(self.start)
                while view and (read := stream.readinto(view)):
                    view = view[read:]
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read: {error.strerror}") from None
        return raw


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
