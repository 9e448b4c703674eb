"""OpenAI's CLIP archives: TorchScript files, of which only the tensors are read.

The pickle inside is rebuilt by an unpickler that knows tensors, plain containers and empty records,
and nothing else; the archive's code is not looked at.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from unclip.errors import CheckpointError
from unclip.storage.entries import Entry, Stored

LARGEST_PICKLE = 256 * 2**20
DEEPEST = 64

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Record:
    """Stands for an object of any class the archive defines: its attributes, no behaviour."""

    attributes: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class Unknown(pickle.UnpicklingError):
    """The pickle asks for something that is no tensor and no plain container."""


def is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether a zip file is a TorchScript archive."""
    parts = [name.split("/", 1)[1] for name in archive.namelist() if "/" in name]
    return "constants.pkl" in parts and any(part.startswith("code/") for part in parts)


def read_torchscript(archive: zipfile.ZipFile, file: Path) -> dict[str, Entry]:
    """The tensors of an archive, named by their path through its modules.

    Raises:
        CheckpointError: it is damaged, or asks for more than tensors.
    """
    root = archive.namelist()[0].split("/", 1)[0]
    try:
        info = archive.getinfo(f"{root}/data.pkl")
        if info.file_size > LARGEST_PICKLE:
            raise CheckpointError(f"{file} is damaged: its structure is impossibly large")
        content = _Reader(archive.read(info), archive, root, file).load()
    except Unknown as error:
        raise CheckpointError(f"{file} holds code ({error}), which is never run") from None
    except CheckpointError:
        raise
    except Exception:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{file} is damaged or cut short; fetch it again") from None
    entries = dict(_walk(content, "", 0))
    if not entries:
        raise CheckpointError(f"{file} holds no tensors")
    return entries


def _walk(value: Any, path: str, depth: int) -> Iterator[tuple[str, Entry]]:
    if isinstance(value, Stored):
        yield path, value
    elif isinstance(value, Record) and depth < DEEPEST:
        for name, inner in getattr(value, "attributes", {}).items():
            yield from _walk(inner, f"{path}.{name}" if path else str(name), depth + 1)


class _Reader(pickle.Unpickler):
    """Builds `Stored` tensors, `Record`s and containers; everything else is refused."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, root: str, file: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._archive, self._root, self._file = archive, root, file

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("__torch__"):
            return Record
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        raise Unknown(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[Path, int, int, torch.dtype]:
        """Find a storage in the archive: the file, its first byte, its bytes, its dtype."""
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise Unknown(str(kind))
        info = self._archive.getinfo(f"{self._root}/data/{key}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size < count * dtype.itemsize:
            raise CheckpointError(f"{self._file} is damaged: tensor data {key} cannot be read")
        with self._file.open("rb") as stream:
            stream.seek(info.header_offset + 26)
            lengths = stream.read(4)
        name, extra = (int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        return self._file, info.header_offset + 30 + name + extra, info.file_size, dtype


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Stored:
    file, start, length, dtype = storage
    shape, steps = tuple(map(int, size)), tuple(map(int, stride))
    count = 0 if 0 in shape else 1 + sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
    if min((offset, *shape, *steps)) < 0 or (offset + count) * dtype.itemsize > length:
        raise CheckpointError(f"{file} is damaged: a tensor is larger than its data")
    return Stored(file, start + offset * dtype.itemsize, shape, dtype, steps)


def _first(value: Any, *_: Any) -> Any:
    return value


ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    **{
        ("torch.jit._pickle", f"build_{kind}list"): _first
        for kind in ("int", "double", "bool", "tensor")
    },
    ("torch.jit._pickle", "restore_type_tag"): _first,
}
