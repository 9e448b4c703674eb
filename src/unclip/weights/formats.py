"""The file formats weights are published in: safetensors, PyTorch's pickles.

Told apart by their first bytes. Only what names, shapes and places tensors is read here. Nothing
a file says is ever executed; TorchScript archives are read in `torchscript`.
"""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.torch_version import TorchVersion

from unclip.errors import CheckpointError
from unclip.storage.entries import Entry, Held, Stored
from unclip.storage.safetensors import read_safetensors
from unclip.weights.torchscript import is_torchscript, read_torchscript

OLDEST_TORCH = "2.10"
"""Before it, a crafted pickle could corrupt memory even with ``weights_only``."""


def read_entries(file: Path) -> dict[str, Entry]:
    """The tensors of one file by name.

    Raises:
        CheckpointError: it is damaged, holds code or no tensors.
    """
    start = first_bytes(file)
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{file} is a Git LFS pointer, not the weights: run `git lfs pull` in its folder"
        )
    if start[8:9] == b"{":
        return {**read_safetensors(file)}
    if start.startswith(b"PK"):
        with open_archive(file) as archive:
            if is_torchscript(archive):
                return read_torchscript(archive, file)
        return read_pickle(file)
    if start.startswith(b"\x80"):
        return read_pickle(file)
    raise CheckpointError(f"{file} is damaged, or of no format that weights are published in")


def read_pickle(file: Path) -> dict[str, Entry]:
    """Read the structure of a file that ``torch.save`` wrote; tensors stay on the disk.

    Raises:
        CheckpointError: it holds code, or torch is too old to read pickles safely.
    """
    if TorchVersion(torch.__version__) < TorchVersion(OLDEST_TORCH):
        raise CheckpointError(
            f"{file} is a pickle, which PyTorch {torch.__version__} does not read safely; "
            f"install torch>={OLDEST_TORCH} or bring the weights as safetensors"
        )
    is_archive = first_bytes(file).startswith(b"PK")
    if is_archive:
        with open_archive(file) as archive:
            for name in archive.namelist():
                if name.endswith("/byteorder") and archive.read(name) != b"little":
                    raise CheckpointError(f"{file} was written on a big-endian machine")
    # On the meta device torch checks and rebuilds everything and reads no weights. The format
    # before 2020 has no places in the file, so there is no way but to read it whole.
    content = _load(file, "meta" if is_archive else "cpu")
    tensors = _unwrapped(content)
    if not tensors:
        raise CheckpointError(f"{file} holds no tensors by name")
    return {name: _entry(file, tensor) for name, tensor in tensors.items()}


def strings_in_pickle(file: Path) -> Iterator[str]:
    """Every string in a pickle, by its opcodes alone: what one can know of a file with code."""
    start = first_bytes(file)
    try:
        if start.startswith(b"PK"):
            with open_archive(file) as archive:
                for name in archive.namelist():
                    if name.endswith("/data.pkl"):
                        yield from _strings(io.BytesIO(archive.read(name)))
        elif start.startswith(b"\x80"):
            with file.open("rb") as stream:
                while stream.peek(1)[:1] == b"\x80":  # such a file begins with several pickles
                    yield from _strings(stream)
    except (ValueError, OSError, zipfile.BadZipFile):
        return


def _strings(stream: io.BytesIO | io.BufferedReader) -> Iterator[str]:
    for opcode, value, _ in pickletools.genops(stream):
        if isinstance(value, str) and "UNICODE" in opcode.name:
            yield value


def first_bytes(file: Path) -> bytes:
    """The first bytes of a file, enough to tell formats apart."""
    with _reading(file), file.open("rb") as stream:
        return stream.read(64)


def open_archive(file: Path) -> zipfile.ZipFile:
    """Open a zip archive.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        with _reading(file):
            return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise CheckpointError(f"{file} is damaged or cut short; fetch it again") from None


def _load(file: Path, device: str) -> Any:
    try:
        return torch.load(file, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        names = _unsafe(file)
        what = f"code ({', '.join(names[:3])})" if names else "what is no plain data"
        raise CheckpointError(
            f"{file} holds {what}, which is never run; "
            "ask its authors for safetensors, or save its state_dict alone"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None
    except Exception:  # a damaged pickle can fail in any way
        raise CheckpointError(f"{file} is damaged or cut short; fetch it again") from None


def _unsafe(file: Path) -> Sequence[str]:
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # it reads archives only, and only to name what it finds
        return []


def _unwrapped(content: Any) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = {str(i): value for i, value in enumerate(content)}
    if not isinstance(content, Mapping):
        return {}
    tensors = {str(k): value for k, value in content.items() if isinstance(value, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _entry(file: Path, tensor: Tensor) -> Entry:
    if tensor.device.type != "meta":
        return Held(tensor)
    if tensor.layout is not torch.strided:
        raise CheckpointError(f"{file} holds sparse tensors, which are not supported")
    place: Any = tensor.untyped_storage()
    start = place._checkpoint_offset + int(tensor.storage_offset()) * tensor.dtype.itemsize
    return Stored(file, start, tuple(tensor.shape), tensor.dtype, tensor.stride())


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{file} does not exist") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror or error}") from None
