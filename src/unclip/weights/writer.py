"""A safetensors file written tensor by tensor, so that never two of them need memory."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from unclip.errors import CheckpointError
from unclip.storage.safetensors import DTYPES

ALIGNMENT = 8
"""Bytes: of the header, and of what can lie before a tensor of any dtype."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Iterator[tuple[str, Tensor]],
    *,
    name: str,
) -> None:
    """Write ``tensors`` as they come and hold them against ``shapes``.

    Args:
        path: the file.
        shapes: all tensors there must be, by name.
        tensors: in any order.
        name: of the source, for errors.

    Raises:
        CheckpointError: a tensor is missing, one too many or of another shape.
        OSError: the file cannot be written.
    """
    room = sum(len(json.dumps(key)) + len(str(shape)) + 128 for key, shape in shapes.items())
    room += ALIGNMENT - room % ALIGNMENT
    header: dict[str, object] = {}
    late: list[tuple[str, Tensor]] = []
    with path.open("wb") as stream:
        stream.write(bytes(8 + room))

        def write(key: str, tensor: Tensor) -> None:
            begin = stream.tell() - 8 - room
            stream.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            header[key] = {
                "dtype": _NAMES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [begin, begin + tensor.nbytes],
            }

        for key, tensor in tensors:
            _check(key, tensor, shapes, header, name)
            # The format has no gaps, and a tensor must start at a multiple of its items' size:
            # those that would leave the next one askew, a few small ones, come last.
            if tensor.nbytes % ALIGNMENT:
                late.append((key, tensor.clone()))
                header[key] = None
            else:
                write(key, tensor.contiguous())
        for key, tensor in sorted(late, key=lambda item: -item[1].itemsize):
            write(key, tensor.contiguous())
        if missing := sorted(set(shapes) - set(header)):
            raise CheckpointError(
                f"{name} is incomplete: nothing in it becomes {missing[0]}, which its config needs"
            )
        text = json.dumps(header, separators=(",", ":")).encode()
        assert len(text) <= room
        stream.seek(0)
        stream.write(room.to_bytes(8, "little") + text.ljust(room))


def _check(
    key: str,
    tensor: Tensor,
    shapes: Mapping[str, tuple[int, ...]],
    written: Mapping[str, object],
    name: str,
) -> None:
    if key not in shapes:
        raise CheckpointError(f"{name} does not fit its config, which has no place for {key}")
    if tuple(tensor.shape) != shapes[key]:
        raise CheckpointError(
            f"{name} does not fit its config: {key} has shape {tuple(tensor.shape)}, "
            f"not {shapes[key]}"
        )
    assert key not in written, f"{key} comes twice"
