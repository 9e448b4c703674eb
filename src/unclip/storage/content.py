"""What a file holds, as a digest; of large files a sample of each tensor."""

import hashlib
from pathlib import Path

from unclip.storage.entries import opened
from unclip.storage.safetensors import read_safetensors

WHOLE = 64 * 2**20
"""Bytes up to which a file is read whole."""
BLOCK = 4096
BLOCKS = 8
"""Blocks read of each tensor, its last one among them."""


def digest_of(file: Path) -> bytes:
    """SHA-256 of a file; above `WHOLE` bytes, of the header and of blocks of each tensor.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    with opened(file) as stream:
        size = file.stat().st_size
        if size <= WHOLE:
            return hashlib.file_digest(stream, "sha256").digest()
        digest = hashlib.sha256()
        entries = sorted(read_safetensors(file).values(), key=lambda entry: entry.start)
        digest.update(stream.read(entries[0].start))
        for entry in entries:
            last = max(0, entry.length - BLOCK)
            for i in range(BLOCKS):
                stream.seek(entry.start + last * i // (BLOCKS - 1))
                digest.update(stream.read(min(BLOCK, entry.length)))
    return digest.digest()
