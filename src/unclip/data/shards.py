"""Tar shards as img2dataset writes them: ``name.jpg``, ``name.txt`` and ``name.json`` together.

Local shards are indexed once, by reading their headers, and are then read by index like a
folder. Shards behind URLs can only be streamed.
"""

import json
import random
import re
import shutil
import tarfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from webdataset.gopen import gopen
from webdataset.handlers import ignore_and_continue
from webdataset.tariterators import base_plus_ext, group_by_keys, tar_file_iterator

from unclip import images
from unclip.data import captions
from unclip.data.order import Order
from unclip.data.report import describe
from unclip.data.source import BadSample, Sample, Streamed
from unclip.errors import DataError
from unclip.randomness import derive_seed


@dataclass(frozen=True)
class _Entry:
    """Where a sample's files lie in its shard."""

    shard: int
    key: str
    members: dict[str, tuple[int, int]]
    """Suffix to (offset, size)."""


class ShardSource:
    """Samples of local, uncompressed tar shards, in their order, read by index.

    Args:
        paths: the shards, in order.
        with_captions: False for images without captions.

    Raises:
        DataError: a shard cannot be opened at all.
    """

    def __init__(self, paths: Sequence[str | Path], with_captions: bool = True) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.with_captions = with_captions
        self._entries = [
            entry for number, path in enumerate(self.paths) for entry in _index(number, path)
        ]

    def __len__(self) -> int:
        return len(self._entries)

    def sample(self, index: int) -> Sample:
        """Return a sample, its image undecoded.

        Raises:
            BadSample: image or captions are missing or damaged, or this stands for the lost
                rest of a truncated shard.
        """
        entry = self._entries[index]
        if isinstance(entry, BadSample):
            raise entry
        files = {}
        with self.paths[entry.shard].open("rb") as file:
            for suffix, (offset, size) in entry.members.items():
                file.seek(offset)
                files[suffix] = file.read(size)
        return _sample(files, entry.key, self.with_captions)


class StreamedShards:
    """Samples of tar shards behind http(s) URLs, one after the other.

    Each epoch has its own order of shards, and a buffer shuffles the samples. Every process
    reads the whole stream and decodes its part, so that several processes see exactly what one
    sees; with many of them, copy the shards to local disks. Resuming reads what was already
    seen once more, without decoding it.

    Args:
        urls: the shards.
        with_captions: False for images without captions.
        buffer: how many undecoded samples are shuffled at a time.
    """

    def __init__(self, urls: Sequence[str], with_captions: bool = True, buffer: int = 1000) -> None:
        if shutil.which("curl") is None:
            raise DataError("streaming shards needs the program curl; install it")
        self.urls = tuple(urls)
        self.with_captions = with_captions
        self.buffer = buffer

    def stream(self, seed: int, start: int = 0) -> Generator[Streamed, None, None]:
        """Yield samples endlessly, leaving out the first ``start``.

        Raises:
            DataError: an epoch had no usable sample.
        """
        order = Order(len(self.urls), seed)
        place = epoch = 0
        while True:
            shards = order.indices(epoch * len(self.urls) + np.arange(len(self.urls)))
            bad: list[BadSample] = []
            usable = False
            for sample in self._epoch(shards.tolist(), derive_seed(seed, "buffer", epoch)):
                if isinstance(sample, BadSample):
                    bad.append(sample)
                usable = usable or isinstance(sample, Sample)
                if place >= start:
                    yield Streamed(epoch, sample)
                place += 1
            if not usable:
                raise DataError(f"no usable sample in {len(self.urls)} shards: {describe(bad)}")
            epoch += 1

    def _epoch(self, shards: Sequence[int], seed: int) -> Iterator[Sample | BadSample]:
        rng = random.Random(seed)
        held: list[Sample | BadSample] = []
        for shard in shards:
            for sample in self._shard(self.urls[shard]):
                if len(held) < self.buffer:
                    held.append(sample)
                    continue
                at = rng.randrange(self.buffer)
                held[at], sample = sample, held[at]
                yield sample
        rng.shuffle(held)
        yield from held

    def _shard(self, url: str) -> Iterator[Sample | BadSample]:
        failures: list[BadSample] = []

        def files() -> Iterator[dict]:
            opened = False
            try:
                with gopen(url, "rb") as stream:
                    bytes_read = _Watched(stream.read)
                    for file in tar_file_iterator(bytes_read):
                        opened = True
                        yield file | {"__url__": url}
                    if bytes_read.ended:
                        raise tarfile.ReadError("it has no end mark")
            except (OSError, tarfile.TarError, EOFError) as error:
                reason = "truncated shard" if opened else "unreadable shard"
                failures.append(BadSample(url, reason, str(error)))

        for group in group_by_keys(files(), handler=ignore_and_continue):  # a name again
            key = f"{PurePosixPath(url).name}/{group.pop('__key__')}"
            del group["__url__"]
            try:
                yield _sample(group, key, self.with_captions)
            except BadSample as bad:
                yield bad
        yield from failures


class _Watched:
    """Reads on, and knows whether the end was hit: a tar's end mark lies before it."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.ended = False

    def read(self, size: int) -> bytes:
        data = self._read(size)
        self.ended = self.ended or not data
        return data


def _sample(files: Mapping[str, bytes], key: str, with_captions: bool) -> Sample:
    """Make a sample of the files that share a name; the image stays undecoded."""
    picture = next((data for suffix, data in files.items() if suffix in images.SUFFIXES), None)
    if picture is None:
        raise BadSample(key, "no image in shard", "it has " + ", ".join(files))
    if not with_captions:
        return Sample(key, (), picture)
    if "txt" in files:
        return Sample(key, captions.from_text(files["txt"], key), picture)
    if "json" not in files:
        raise BadSample(key, "no caption", "it has " + ", ".join(files))
    try:
        described = json.loads(files["json"])
    except (ValueError, RecursionError) as error:
        raise BadSample(key, "bad json", str(error)) from None
    if not isinstance(described, dict):
        raise BadSample(key, "bad json", "it is no object")
    values = (described[name] for name in captions.COLUMNS if described.get(name) is not None)
    return Sample(key, captions.from_value(next(values, None), key), picture)


def _index(number: int, path: Path) -> list[_Entry | BadSample]:
    """List a shard's samples by its headers; what a cut left out is one bad sample."""
    entries: list[_Entry | BadSample] = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            try:
                for member in tar:
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError("unexpected end of data")
                    _add(entries, number, path, member)
                if tar.offset + tarfile.BLOCKSIZE > size:
                    raise tarfile.ReadError("it has no end mark")
            except tarfile.ReadError as error:
                entries.append(BadSample(str(path), "truncated shard", str(error)))
    except tarfile.TarError as error:
        entries.append(BadSample(str(path), "unreadable shard", str(error)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return entries


def _add(
    entries: list[_Entry | BadSample], number: int, path: Path, member: tarfile.TarInfo
) -> None:
    """Put a file to the sample before it if they share a name, as WebDataset groups them."""
    name, suffix = base_plus_ext(member.name)
    if not member.isreg() or name is None or re.match(r"__[^/]*__($|/)", member.name):
        return
    key = f"{path.name}/{name}"
    last = entries[-1] if entries else None
    if not isinstance(last, _Entry) or last.key != key:
        last = _Entry(number, key, {})
        entries.append(last)
    last.members.setdefault(suffix.lower(), (member.offset_data, member.size))
