"""The tensors of a checkpoint by name, each read from disk when it is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from unclip.storage.entries import Entry, Held
from unclip.weights.formats import read_entries


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

    def shapes_only(self) -> "Tensors":
        """The same on the meta device: what is computed from them has shapes and no values."""
        return Tensors(
            {
                name: Held(torch.empty(entry.shape, dtype=entry.dtype, device="meta"))
                for name, entry in self._entries.items()
            }
        )

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
    entries: dict[str, Entry] = {}
    for file in files:
        entries.update(read_entries(file))
    return Tensors(entries)
