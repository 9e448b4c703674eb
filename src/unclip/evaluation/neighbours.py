"""Nearest neighbours of an image or a text in a folder of images, with an index that is kept.

The index lies beside nothing of the user's: it is a cache, keyed by the CLIP and by each file's
name, size and time of change.
"""

import hashlib
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from unclip.clip.clip import Clip
from unclip.data.folder import FolderSource
from unclip.data.source import BadSample, Sample
from unclip.data.transforms import SquareResize
from unclip.errors import DataError, ImageError, OptionError
from unclip.storage.cache import cache_folder
from unclip.types import Step

_BATCH = 32
_EMBEDDINGS, _STAMPS, _USABLE = "embeddings", "stamps", "usable"


@dataclass(frozen=True)
class Index:
    """Images of a folder and their embeddings."""

    root: Path
    names: tuple[str, ...]
    embeddings: Float[Tensor, "n d"]
    """Of unit length, in float32."""
    skipped: tuple[str, ...] = ()
    """Files that cannot be read."""

    def nearest(self, query: Float[Tensor, " d"], count: int = 10) -> list[tuple[Path, float]]:
        """The ``count`` nearest images with their cosines, best first."""
        cosines = self.embeddings @ query.float().cpu()
        best = cosines.topk(min(count, len(cosines)))
        return [
            (self.root / self.names[i], value)
            for value, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def index_folder(
    clip: Clip, fingerprint: str, folder: Path, cache: Path | None = None
) -> Generator[Step, None, Index]:
    """Embed the images below a folder, those alone that the cached index does not have.

    Args:
        clip: embeds.
        fingerprint: of its weights; another CLIP has another index.
        folder: of images, in any depth.
        cache: folder of indexes; ``neighbours`` in the user's cache if not given.

    Raises:
        DataError: the folder holds no image that can be read.
        OptionError: the CLIP embeds no images.
        ImageError: the index cannot be written.
    """
    source = FolderSource(folder, with_captions=False)
    samples = [source.sample(i) for i in range(len(source))]
    names = [sample.key for sample in samples]
    stamps = [_stamp(folder, name) for name in names]
    path = _index_path(cache or cache_folder() / "neighbours", fingerprint, folder)
    known = _read(path)
    missing = [i for i, stamp in enumerate(stamps) if stamp not in known]
    if clip.config.image is None:
        raise OptionError("this CLIP has no image tower, so it has no neighbours of images")
    fit = SquareResize(size=clip.config.image.size)
    for start in range(0, len(missing), _BATCH):
        part = missing[start : start + _BATCH]
        readable, images = _decoded([samples[i] for i in part], fit)
        z = clip.encode_image(torch.stack(images)).float().cpu() if images else torch.empty(0)
        rows = iter(z)
        for i, good in zip(part, readable, strict=True):
            known[stamps[i]] = next(rows) if good else None
        yield Step("images", min(start + _BATCH, len(missing)) - 1, len(missing), z, z)
    if missing:
        _write(path, known)
    usable = [i for i, stamp in enumerate(stamps) if known[stamp] is not None]
    if not usable:
        raise DataError(f"{folder}: holds no image that can be read")
    return Index(
        folder,
        tuple(names[i] for i in usable),
        torch.stack([row for i in usable if (row := known[stamps[i]]) is not None]),
        tuple(names[i] for i, stamp in enumerate(stamps) if known[stamp] is None),
    )


def _decoded(samples: Sequence[Sample], fit: SquareResize) -> tuple[list[bool], list[Tensor]]:
    readable, images = [], []
    for sample in samples:
        try:
            images.append(fit(sample.image(), 0, sample.key))
            readable.append(True)
        except BadSample:
            readable.append(False)
    return readable, images


def _stamp(folder: Path, name: str) -> str:
    facts = (folder / name).stat()
    text = f"{name}/{facts.st_size}/{facts.st_mtime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _index_path(cache: Path, fingerprint: str, folder: Path) -> Path:
    where = hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
    return cache / f"{where}-{fingerprint}.safetensors"


def _read(path: Path) -> dict[str, Tensor | None]:
    """What is cached, by stamp; a damaged index is none."""
    try:
        tensors = load_file(path)
        stamps = [bytes(row.tolist()).hex() for row in tensors[_STAMPS]]
        usable = tensors[_USABLE].tolist()
        rows = tensors[_EMBEDDINGS]
    except Exception:  # safetensors raises its own errors, and whatever a short file causes
        return {}
    return {s: row if good else None for s, good, row in zip(stamps, usable, rows, strict=True)}


def _write(path: Path, known: dict[str, Tensor | None]) -> None:
    dimension = next((len(row) for row in known.values() if row is not None), 1)
    rows = [torch.zeros(dimension) if row is None else row for row in known.values()]
    tensors = {
        _EMBEDDINGS: torch.stack(rows),
        _STAMPS: torch.tensor([list(bytes.fromhex(s)) for s in known], dtype=torch.uint8),
        _USABLE: torch.tensor([row is not None for row in known.values()]),
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, beside)
        beside.replace(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror or error}") from None
