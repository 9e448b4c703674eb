"""CLIP image embeddings of a dataset, computed once and kept in a folder.

The prior then trains without decoding a single image (§1.4). Those made by clip-retrieval are the
affair of `unclip.data.retrieval`.
"""

import json
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from unclip.config import Config
from unclip.data.report import Report
from unclip.data.source import BadSample, Sample, Source
from unclip.data.transforms import SquareResize
from unclip.errors import DataError
from unclip.identity import ClipIdentity

_CARD = "embeddings.json"


@runtime_checkable
class ImageEncoder(Protocol):
    """The side of a CLIP that is needed here."""

    def identity(self) -> ClipIdentity:
        """Tell which CLIP it is, by its weights."""
        ...

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Embed images in [-1, 1]."""
        ...


class _Card(Config):
    """What a folder of embeddings was made from."""

    format: Literal[1] = 1
    clip: ClipIdentity
    """Its image tower; the other changes no image embedding."""
    preprocessing: str
    samples: int
    rows: int
    dtype: Literal["float16", "float32"]


def compute_embeddings(
    source: Source,
    clip: ImageEncoder,
    transform: SquareResize,
    folder: str | Path,
    *,
    batch: int = 64,
    rows: int = 4096,
    threads: int = 2,
    dtype: Literal["float16", "float32"] = "float16",
) -> Generator[tuple[int, int], None, "EmbeddedSource"]:
    """Embed every image of ``source``; what an interrupted run has finished is kept.

    Args:
        source: read by index.
        clip: on its device and in its dtype.
        transform: how images are brought to CLIP's size.
        folder: is made if need be. Each file in it is written beside, then renamed.
        batch: images CLIP sees at once.
        rows: embeddings a file; a run resumes after the last whole file.
        threads: that decode images.
        dtype: to keep embeddings in.

    Yields:
        Samples done and samples in all, after each file.

    Returns:
        The source with its embeddings.

    Raises:
        DataError: the folder holds other embeddings, or no image could be used.
    """
    folder = Path(folder)
    card = _Card(
        clip=_image_side(clip),
        preprocessing=transform.model_dump_json(),
        samples=len(source),
        rows=rows,
        dtype=dtype,
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _CARD).exists():
            _check(folder, _read_card(folder), card)
        _rename_into(folder / _CARD, lambda path: path.write_text(card.model_dump_json(indent=2)))
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error
    report = Report()
    usable = False
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(source), rows):
            path = _path(folder, first // rows)
            if not path.exists():
                indices = range(first, min(first + rows, len(source)))
                _embed_file(path, source, indices, clip, transform, pool, batch, dtype, report)
            usable = usable or bool(_opened(path)[0].get_tensor("present").any())
            yield min(first + rows, len(source)), len(source)
    if not usable:
        raise DataError(f"{folder}: no usable sample among {len(source)}; {report}")
    return EmbeddedSource(source, folder, clip, transform)


class EmbeddedSource:
    """A source whose samples carry their cached image embedding.

    With ``Loader(transform=None)`` no image is decoded.

    Args:
        source: what the embeddings were computed of.
        folder: where they are.
        clip: the CLIP they must come from.
        transform: the preprocessing they must come from.

    Raises:
        DataError: the embeddings are missing, incomplete, or of another CLIP, preprocessing or
            dataset.
    """

    def __init__(
        self, source: Source, folder: str | Path, clip: ImageEncoder, transform: SquareResize
    ) -> None:
        self.source = source
        self.folder = Path(folder)
        self._card = _read_card(self.folder)
        wanted = {
            "clip": _image_side(clip),
            "preprocessing": transform.model_dump_json(),
            "samples": len(source),
        }
        _check(self.folder, self._card, self._card.model_copy(update=wanted))
        files = -(-len(source) // self._card.rows)
        missing = [n for n in range(files) if not _path(self.folder, n).is_file()]
        if missing:
            raise DataError(
                f"{self.folder}: {len(missing)} of {files} files are missing; "
                "compute the embeddings again, it continues where it stopped"
            )
        self._open: dict[int, tuple[Any, list[str]]] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files behind: loader workers open their own."""
        return self.__dict__ | {"_open": {}}

    def sample(self, index: int) -> Sample:
        """Return the source's sample with its embedding, in float32.

        Raises:
            BadSample: it could not be used when the embeddings were computed, or cannot now.
            DataError: the embedding is of another sample: the dataset has changed.
        """
        sample = self.source.sample(index)
        number, row = divmod(index, self._card.rows)
        file, keys = self._file(number)
        if keys[row] != sample.key:
            raise DataError(
                f"{self.folder}: sample {index} was {keys[row]} and is {sample.key} now; "
                "the dataset has changed, delete the folder and compute again"
            )
        if not file.get_slice("present")[row : row + 1].all():
            raise BadSample(sample.key, "no embedding", "its image was unusable then")
        embedding = file.get_slice("embedding")[row : row + 1][0]
        return replace(sample, embedding=embedding.astype(np.float32))

    def _file(self, number: int) -> tuple[Any, list[str]]:
        if number not in self._open:
            self._open[number] = _opened(_path(self.folder, number))
        return self._open[number]


def _embed_file(
    path: Path,
    source: Source,
    indices: range,
    clip: ImageEncoder,
    transform: SquareResize,
    pool: ThreadPoolExecutor,
    batch: int,
    dtype: str,
    report: Report,
) -> None:
    keys: list[str] = []
    present: list[bool] = []
    found: list[np.ndarray] = []
    for first in range(0, len(indices), batch):
        read = list(pool.map(partial(_read, source, transform), indices[first : first + batch]))
        good = [image for _, image in read if isinstance(image, Tensor)]
        report.add([image for _, image in read if isinstance(image, BadSample)])
        keys += [key for key, _ in read]
        present += [isinstance(image, Tensor) for _, image in read]
        if good:
            with torch.no_grad():
                found.extend(clip.encode_image(torch.stack(good)).float().cpu().numpy())
    width = len(found[0]) if found else 1
    embedding = np.zeros((len(keys), width), dtype)
    embedding[np.array(present)] = np.array(found).reshape(-1, width)
    tensors = {"embedding": embedding, "present": np.array(present)}
    try:
        _rename_into(path, lambda beside: save_file(tensors, beside, {"keys": json.dumps(keys)}))
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: cannot be written: {error}") from error


def _read(source: Source, transform: SquareResize, index: int) -> tuple[str, Tensor | BadSample]:
    try:
        sample = source.sample(index)
        return sample.key, transform(sample.image(), 0, sample.key)
    except BadSample as bad:
        return bad.key, bad


def _opened(path: Path) -> tuple[Any, list[str]]:
    """Map a file of embeddings; returns it with the keys of its rows."""
    try:
        file = safe_open(path, "numpy").__enter__()  # never left: closing it unmaps its pages
        return file, json.loads(file.metadata()["keys"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it and compute again") from None


def _check(folder: Path, found: _Card, wanted: _Card) -> None:
    """Compare cards; a difference is an error that names both sides."""
    if conflict := found.clip.conflict(wanted.clip):
        raise DataError(
            f"{folder}: these embeddings are of another CLIP ({conflict}); "
            "delete the folder or choose another"
        )
    if found.preprocessing != wanted.preprocessing:
        raise DataError(
            f"{folder}: these embeddings are of preprocessing {found.preprocessing}, not of "
            f"{wanted.preprocessing}; delete the folder or choose another"
        )
    if found.model_copy(update={"clip": wanted.clip}) != wanted:
        raise DataError(
            f"{folder}: holds {found.samples} embeddings in {found.dtype}, {found.rows} a file; "
            f"asked for are {wanted.samples} in {wanted.dtype}, {wanted.rows} a file; "
            "delete the folder or choose another"
        )


def _image_side(clip: ImageEncoder) -> ClipIdentity:
    return clip.identity().model_copy(update={"text": None})


def _read_card(folder: Path) -> _Card:
    try:
        return _Card.model_validate_json((folder / _CARD).read_text())
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no embeddings; compute them first") from None
    except (OSError, ValidationError) as error:
        raise DataError(f"{folder / _CARD}: cannot be read: {error}") from None


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.safetensors"


def _rename_into(path: Path, write: Any) -> None:
    beside = path.with_suffix(".part")
    beside.touch()
    usual = beside.stat().st_mode
    write(beside)
    beside.chmod(usual)  # safetensors writes files that nobody else may read
    with beside.open("r+b") as file:  # Windows flushes only what was opened for writing
        os.fsync(file.fileno())
    beside.replace(path)
