import io
import json
import tarfile
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, picture

from unclip.data.source import Sample


class Numbers:
    """A source in memory: sample i is a picture of i, called by its number."""

    def __init__(self, size: int, captions: int = 1) -> None:
        self.size, self.captions = size, captions

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int) -> Sample:
        captions = tuple(f"{index} in other words {j}" for j in range(self.captions))
        return Sample(str(index), captions, np.array(picture(index)))


@pytest.fixture
def numbers() -> type[Numbers]:
    return Numbers


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[int], Path]:
    """Writes a folder of numbered pictures with captions, and says where."""

    def write(count: int) -> Path:
        root = tmp_path / "pictures"
        for i in range(count):
            below = root / ("odd" if i % 2 else "even")
            below.mkdir(parents=True, exist_ok=True)
            picture(i).save(below / f"{i:03}.png")
            (below / f"{i:03}.txt").write_text(f"number {i}\n\n  the {i}th picture \n")
        return root

    return write


@pytest.fixture
def pack(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tar of the given names and bytes, and says where."""

    def write(name: str, members: Sequence[tuple[str, bytes]]) -> Path:
        path = tmp_path / "shards" / name
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path

    return write


@pytest.fixture
def shards(pack: Callable[..., Path]) -> Callable[[Sequence[int]], list[Path]]:
    """Writes shards of so many numbered pictures as img2dataset does, and says where."""

    def write(counts: Sequence[int]) -> list[Path]:
        paths = []
        numbers = count()
        for shard, size in enumerate(counts):
            members = []
            for i in islice(numbers, size):
                name = f"{shard:05}{i:04}"
                members.append((f"{name}.png", encoded(picture(i))))
                members.append((f"{name}.json", json.dumps({"caption": f"json {i}"}).encode()))
                members.append((f"{name}.txt", f"number {i}".encode()))
            paths.append(pack(f"{shard:05}.tar", members))
        return paths

    return write
