"""From a path or a URL to a source: finds out what lies there."""

import re
from pathlib import Path

from braceexpand import braceexpand

from unclip import images
from unclip.data.folder import FolderSource
from unclip.data.metadata import MetadataSource
from unclip.data.retrieval import RetrievalSource, is_retrieval
from unclip.data.shards import ShardSource, StreamedShards
from unclip.data.source import Source, StreamSource
from unclip.errors import DataError

_LOOKED_FOR = "metadata.jsonl or metadata.csv, *.tar shards, or images (" + (
    ", ".join(sorted(images.SUFFIXES)) + ")"
)

SHARDED = ".txt or .json files of the shards"
"""Where their captions are."""


def open_data(
    location: str | Path, with_captions: bool = True, caption_column: str | None = None
) -> Source | StreamSource:
    """Open a dataset, whichever of the known layouts it has.

    Args:
        location: a folder of images with ``.txt`` files, a folder with ``metadata.jsonl`` or
            ``metadata.csv``, such a file itself, a folder of tar shards, or shards by pattern:
            ``data/{00000..00099}.tar``, ``data/*.tar``, ``https://host/{000..099}.tar``. Also a
            folder of embeddings and captions as clip-retrieval writes it, which has no images.
        with_captions: False if only the images are wanted.
        caption_column: the captions' column in metadata files.

    Raises:
        DataError: nothing is there, or nothing of a known layout, or more than one thing; or a
            column is named where captions have none.
    """
    text = str(location)
    if (scheme := re.match(r"([a-z][a-z0-9+.-]*)://|pipe:", text)) is not None:
        if scheme.group(1) not in ("http", "https"):
            raise DataError(f"{text}: only http:// and https:// can be streamed")
        _check_column(text, caption_column, SHARDED)
        return StreamedShards(_expand(text), with_captions)
    path = Path(location)
    if path.is_dir():
        return _open_folder(path, with_captions, caption_column)
    if path.is_file():
        if path.suffix in (".jsonl", ".csv"):
            return MetadataSource(path, with_captions, caption_column)
        if path.suffix == ".tar":
            _check_column(text, caption_column, SHARDED)
            return ShardSource([path], with_captions)
        raise DataError(f"{path}: neither a folder nor a .tar, .jsonl or .csv file")
    if not any(sign in text for sign in "*?[{"):
        raise DataError(f"{text}: nothing is there")
    shards = [shard for pattern in _expand(text) for shard in _matching(pattern)]
    if not shards:
        raise DataError(f"{text}: nothing is there")
    _check_column(text, caption_column, SHARDED)
    return ShardSource(shards, with_captions)


def _check_column(location: str, column: str | None, where: str) -> None:
    """Refuse a column of captions where they lie in no column."""
    if column is not None:
        raise DataError(
            f"{location}: {column!r} would name a column of metadata files; captions here are in "
            f"{where}: leave the column out"
        )


def _expand(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError:
        raise DataError(f"{pattern}: its braces do not match") from None


def _matching(pattern: str) -> list[Path]:
    """The files of a pattern with * and ?; a plain name that does not exist is an error."""
    if not any(wild in pattern for wild in "*?["):
        if not Path(pattern).is_file():
            raise DataError(f"{pattern}: there is no such shard")
        return [Path(pattern)]
    anchor = Path(pattern).anchor
    return sorted(Path(anchor).glob(pattern.removeprefix(anchor)))


def _open_folder(path: Path, with_captions: bool, caption_column: str | None) -> Source:
    if is_retrieval(path):
        if not with_captions:
            raise DataError(f"{path}: holds embeddings, no images")
        return RetrievalSource(path, caption_column)
    listed = [path / f"metadata{ending}" for ending in (".jsonl", ".csv")]
    metadata = [file for file in listed if file.is_file()]
    shards = sorted(path.glob("*.tar"))
    if len(metadata) == 2 or (metadata and shards):
        both = ", ".join(file.name for file in [*metadata, *shards[:1]])
        raise DataError(f"{path}: holds {both}; name the one to use")
    if metadata:
        return MetadataSource(metadata[0], with_captions, caption_column)
    if shards:
        _check_column(str(path), caption_column, SHARDED)
        return ShardSource(shards, with_captions)
    if splits := sorted({file.parent.name for file in path.glob("*/metadata.*")}):
        where = ", ".join(splits)
        raise DataError(f"{path}: its metadata lies in {where}; give one of these folders")
    source = FolderSource(path, with_captions)
    if len(source) == 0:
        found = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
        raise DataError(f"{path}: no dataset; looked for {_LOOKED_FOR}; found {found}")
    _check_column(str(path), caption_column, ".txt files")
    return source
