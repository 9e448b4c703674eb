import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.data.source import Sample


def picture(i: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A picture that shows its number: its colour."""
    return Image.new("RGB", size, (i % 256, i // 256, 100))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


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
def shards(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes tar shards as img2dataset does, and says where."""

    def write(counts: Sequence[int], kind: str = "PNG") -> list[Path]:
        root = tmp_path / "shards"
        root.mkdir()
        paths = []
        number = 0
        for shard, count in enumerate(counts):
            path = root / f"{shard:05}.tar"
            with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
                for _ in range(count):
                    members = {
                        {"PNG": "png", "JPEG": "jpg"}[kind]: encoded(picture(number), kind),
                        "json": json.dumps({"caption": f"json {number}"}).encode(),
                        "txt": f"number {number}".encode(),
                    }
                    for suffix, data in members.items():
                        info = tarfile.TarInfo(f"{shard:05}{number:04}.{suffix}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
                    number += 1
            paths.append(path)
        return paths

    return write
