"""Embeddings made elsewhere, as clip-retrieval writes them: numpy arrays and parquet tables.

folder/img_emb/img_emb_0.npy  folder/text_emb/text_emb_0.npy  folder/metadata/metadata_0.parquet
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float

from unclip.data import captions
from unclip.data.source import BadSample, Sample, Source
from unclip.data.tables import Tables
from unclip.errors import DataError
from unclip.types import TextFeatures

IMAGES, TEXTS, TABLES = "img_emb", "text_emb", "metadata"
COMPARED = 64
SAME = 0.98
"""Smallest mean cosine of text embeddings that count as the same CLIP's; half precision and
another resampling of images keep 0.999, another CLIP gives about 0."""


@runtime_checkable
class TextEncoder(Protocol):
    """The side of a CLIP that embeddings from elsewhere are checked with."""

    config: Any

    def encode_text(self, captions: Any, *, warn: bool) -> TextFeatures:
        """Embed captions."""
        ...


class RetrievalSource:
    """Captions with their image embeddings, read by index; there are no images.

    Args:
        folder: as clip-retrieval (or img2dataset with it) wrote it, with metadata.
        caption_column: of the tables; without it, the first known one they have.

    Raises:
        DataError: a file is missing, damaged or of another length, or pyarrow is not installed.
    """

    def __init__(self, folder: str | Path, caption_column: str | None = None) -> None:
        self.folder = Path(folder)
        columns = (caption_column,) if caption_column else captions.COLUMNS
        arrays = _numbered(self.folder / IMAGES, "npy")
        tables = _numbered(self.folder / TABLES, "parquet")
        if not arrays:
            raise DataError(f"{self.folder}: no {IMAGES}/{IMAGES}_*.npy in it")
        if missing := sorted(arrays.keys() - tables.keys()):
            raise DataError(
                f"{self.folder}: no {TABLES}/{TABLES}_{missing[0]}.parquet; captions are needed: "
                "run clip-retrieval with its metadata enabled"
            )
        self._numbers = sorted(arrays)
        self._arrays = [arrays[number] for number in self._numbers]
        self._tables = Tables([tables[number] for number in self._numbers], columns)
        lengths = [len(_array(array)) for array in self._arrays]
        self._ends = np.cumsum(lengths).tolist()
        self.width = int(_array(self._arrays[0]).shape[1])

    def __len__(self) -> int:
        return self._ends[-1]

    def sample(self, index: int) -> Sample:
        """Return captions and embedding, in float32, of unit length.

        Raises:
            BadSample: the caption is missing, or the embedding is not finite.
        """
        file, row = self._place(index)
        self._check_rows(file)
        array = self._arrays[file]
        key, text = self._tables.row(file, row)
        embedding = np.asarray(_array(array)[row], np.float32)
        norm = float(np.linalg.norm(embedding))
        if not np.isfinite(norm) or norm == 0:
            raise BadSample(key, "no embedding", f"row {row} of {array.name} is empty or NaN")
        return Sample(key, captions.from_value(text, key), Path(key), embedding / norm)

    def key(self, index: int) -> str:
        """The key of a sample.

        Raises:
            DataError: as `sample`.
        """
        return self._tables.row(*self._place(index))[0]

    def row_keys(self) -> Iterator[str]:
        """Every sample's key, by index, table by table, of which none is kept.

        Raises:
            DataError: as `sample`.
        """
        for file in range(len(self._arrays)):
            self._check_rows(file)
            yield from self._tables.keys(file)

    def _place(self, index: int) -> tuple[int, int]:
        """The file a sample is in, and its row there."""
        file = bisect_right(self._ends, index)
        return file, index - (self._ends[file - 1] if file else 0)

    def _check_rows(self, file: int) -> None:
        array = self._arrays[file]
        if (rows := self._tables.rows(file)) != len(_array(array)):
            raise DataError(
                f"{self._tables.paths[file]}: {rows} rows for the {len(_array(array))} of "
                f"{array.name}; make the embeddings again"
            )

    def check(self, clip: TextEncoder) -> bool:
        """Compare the kept text embeddings with those ``clip`` makes of the captions.

        Returns:
            Whether they could be compared: some folders keep none.

        Raises:
            DataError: the embeddings are of another CLIP.
        """
        config = clip.config
        if self.width != config.embedding:
            raise DataError(
                f"{self.folder}: embeddings of size {self.width}, the CLIP makes "
                f"{config.embedding}; name the CLIP they were made with by --clip"
            )
        if not config.normalise:
            raise DataError(
                f"{self.folder}: clip-retrieval keeps embeddings of unit length, the lengths this "
                "CLIP's priors are trained on are lost; embed the images with `unclip` instead"
            )
        texts = _numbered(self.folder / TEXTS, "npy")
        number = min(texts.keys() & set(self._numbers), default=None)
        if number is None:
            return False
        array, file = texts[number], self._numbers.index(number)
        first = range(min(COMPARED, self._tables.rows(file)))
        values = {row: text for row in first if (text := self._tables.row(file, row)[1])}
        if not values:
            return False
        theirs = torch.from_numpy(np.asarray(_array(array)[[*values]], np.float32))
        said = [captions.from_value(text, str(row))[0] for row, text in values.items()]
        ours = clip.encode_text(said, warn=False).embedding.float().cpu()
        cosine = float(torch.cosine_similarity(ours, theirs).mean())
        if not cosine > SAME:
            raise DataError(
                f"{self.folder}: these embeddings are of another CLIP: its text embeddings and "
                f"this CLIP's have a mean cosine of {cosine:.2f}; name theirs by --clip"
            )
        return True


class JoinedSource:
    """Images and captions of one dataset with the embeddings of a `RetrievalSource`.

    Samples are matched by file name without folder and suffix, which is clip-retrieval's key for
    shards. Of each name 16 bytes are kept, a digest and its row, and compared with the tables.

    Raises:
        DataError: a name is there twice, or no image has an embedding.
    """

    def __init__(self, source: Source, embeddings: RetrievalSource) -> None:
        self.source, self.embeddings = source, embeddings
        digests = bytearray()
        for key in embeddings.row_keys():
            digests += _digest(_stem(key))
        unsorted = np.frombuffer(digests, np.uint64)
        self._rows = np.argsort(unsorted)
        self._digests = unsorted[self._rows]
        for place in np.flatnonzero(self._digests[1:] == self._digests[:-1]):
            one, other = (_stem(embeddings.key(int(row))) for row in self._rows[place : place + 2])
            if one == other:
                raise DataError(f"{embeddings.folder}: {one!r} is the name of two images")

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        """Return the source's sample with its embedding.

        Raises:
            BadSample: it has none, or the sample cannot be used.
        """
        sample = self.source.sample(index)
        row = self._row(_stem(sample.key))
        if row is None:
            raise BadSample(sample.key, "no embedding", f"not in {self.embeddings.folder}")
        return replace(sample, embedding=_embedding(self.embeddings, row))

    def _row(self, stem: str) -> int | None:
        wanted = np.frombuffer(_digest(stem), np.uint64)[0]
        first, end = (int(self._digests.searchsorted(wanted, side)) for side in ("left", "right"))
        rows = map(int, self._rows[first:end])
        # Two names may have one digest.
        return next((row for row in rows if _stem(self.embeddings.key(row)) == stem), None)


def _embedding(source: RetrievalSource, row: int) -> Float[np.ndarray, " d"]:
    embedding = source.sample(row).embedding
    assert embedding is not None
    return embedding


def is_retrieval(folder: Path) -> bool:
    """Whether a folder has clip-retrieval's layout."""
    return (folder / IMAGES).is_dir()


def _stem(key: str) -> str:
    return PurePosixPath(key.replace("\\", "/")).name.rsplit(".", 1)[0]


def _digest(stem: str) -> bytes:
    """Eight bytes that tell names apart, in every process the same."""
    return blake2b(stem.encode(errors="surrogatepass"), digest_size=8).digest()


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    """Files by the number at the end of their names."""
    found = {}
    for path in folder.glob(f"*.{suffix}"):
        if number := re.search(r"(\d+)$", path.stem):
            found[int(number[1])] = path
    return found


@lru_cache(maxsize=1024)
def _array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if array.ndim != 2:
        raise DataError(f"{path}: an array with {array.ndim} axes; rows of embeddings have two")
    return array
