"""The header of a safetensors file: which tensors it holds, and where."""

import json
import os
from itertools import pairwise
from math import prod
from pathlib import Path

import torch

from unclip.errors import CheckpointError
from unclip.storage.entries import Stored, opened

LONGEST_HEADER = 100_000_000

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_safetensors(file: Path) -> dict[str, Stored]:
    """Read the header of a safetensors file and hold it against the file's size."""
    damaged = f"{file} is damaged"
    with opened(file) as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise CheckpointError(f"{damaged}: its header cannot be {length} bytes long")
        text = stream.read(length)
        held = os.fstat(stream.fileno()).st_size - 8 - length
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        spans = {name: (*entry["data_offsets"], entry) for name, entry in header.items()}
        entries: dict[str, Stored] = {
            name: Stored(file, 8 + length + begin, tuple(entry["shape"]), DTYPES[entry["dtype"]])
            for name, (begin, _, entry) in spans.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{damaged}: its header cannot be read; fetch it again") from None
    edges = sorted((begin, end) for begin, end, _ in spans.values())
    ends = max((end for _, end in edges), default=0)
    if held < ends:
        raise CheckpointError(
            f"{damaged}: {ends - held} bytes are missing at its end; fetch it again"
        )
    fits = all(
        end - begin == prod(entries[name].shape) * entries[name].dtype.itemsize
        for name, (begin, end, _) in spans.items()
    )
    follow = all(before[1] == after[0] for before, after in pairwise([(0, 0), *edges]))
    if not (fits and follow and held == ends):
        raise CheckpointError(f"{damaged}: its header does not agree with its content")
    return entries
