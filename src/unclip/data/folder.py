"""A folder of images, each with a text file of the same name that holds its captions."""

import os
from collections.abc import Iterator
from pathlib import Path

from unclip import images
from unclip.data import captions
from unclip.data.source import BadSample, Sample


class FolderSource:
    """Images below a folder, sorted by path; ``cat.jpg`` takes its captions from ``cat.txt``.

    One caption a line. Hidden files and folders are left out. The folder is listed once, so
    files added later are not seen.

    Args:
        root: the folder.
        with_captions: False for images without captions (upsamplers need none): text files
            are not read then, and `Sample.captions` is empty.
    """

    def __init__(self, root: str | Path, with_captions: bool = True) -> None:
        self.root = Path(root)
        self.with_captions = with_captions
        self._keys = sorted(_image_paths(self.root))

    def __len__(self) -> int:
        return len(self._keys)

    def sample(self, index: int) -> Sample:
        """Return a sample, its image undecoded.

        Raises:
            BadSample: the captions are missing, empty or not UTF-8.
        """
        key = self._keys[index]
        path = self.root / key
        found = _sidecar(path, key) if self.with_captions else ()
        return Sample(key, found, path)


def _image_paths(root: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        for name in names:
            if name.rpartition(".")[2].lower() in images.SUFFIXES and not name.startswith("."):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _sidecar(path: Path, key: str) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    try:
        return captions.from_text(beside.read_bytes(), key)
    except FileNotFoundError:
        raise BadSample(key, "no caption", f"there is no {beside.name} beside it") from None
    except OSError as error:
        raise BadSample(key, "unreadable caption", error.strerror or str(error)) from None
