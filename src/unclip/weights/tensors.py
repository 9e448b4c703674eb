"""The tensors of a checkpoint by name, each read from disk when it is asked for.

Bytes are read rather than mapped: pages of a mapped file count as memory of the process.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
        strided = self.stride is not None
        count = prod(self.shape)
        if self.stride is not None and count:
            count = 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        raw = torch.empty(count * self.dtype.itemsize, dtype=torch.uint8)
        try:
            with self.file.open("rb", buffering=0) as stream:
                stream.seek(self.start)
                view = memoryview(raw.numpy())
                while view:
                    read = stream.readinto(view)
                    if not read:
                        raise CheckpointError(
                            f"{self.file} is damaged: it ends within a tensor; fetch it again"
                        )
                    view = view[read:]
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read: {error.strerror}") from None
        flat = raw.view(self.dtype)
        if not strided or not count:
            return flat.view(self.shape)
        return flat.as_strided(self.shape, self.stride).contiguous()


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


class Tensors(Mapping[str, Tensor]):
    """Named tensors; names, shapes and dtypes are known at once, values are read when asked for.

    Args:
        entries: the tensors by name.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Tensors":
        """Tensors that are in memory."""
        return cls({name: Held(tensor) for name, tensor in tensors.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._entries[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes of a tensor's axes; nothing is read."""
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        """A tensor's dtype as stored; nothing is read."""
        return self._entries[name].dtype

    def select(self, rename: Callable[[str], str | None]) -> "Tensors":
        """The tensors for which ``rename`` gives a name, under that name."""
        return Tensors(
            {new: entry for old, entry in self._entries.items() if (new := rename(old)) is not None}
        )

    def without_prefix(self, prefix: str) -> "Tensors":
        """The tensors whose names start with ``prefix``, named without it."""
        return self.select(lambda name: name[len(prefix) :] if name.startswith(prefix) else None)

    def with_prefix(self, prefix: str) -> "Tensors":
        """All tensors, with ``prefix`` before their names."""
        return self.select(lambda name: prefix + name)

    def __or__(self, other: "Tensors") -> "Tensors":
        return Tensors({**self._entries, **other._entries})


def open_tensors(files: Sequence[Path]) -> Tensors:
    """Open the files of one checkpoint: one, or all its shards.

    Reads safetensors, PyTorch's pickles (.bin, .pt, .ckpt, .th) and TorchScript archives, told
    apart by content. What wraps the weights of a training checkpoint (``state_dict``,
    ``module.``) is taken off; of a sequence of tensors the names are 0, 1, ...

    Raises:
        CheckpointError: a file is damaged, holds code or no tensors.
    """
    from unclip.weights.formats import read_entries

    entries: dict[str, Entry] = {}
    for file in files:
        entries.update(read_entries(file))
    return Tensors(entries)
