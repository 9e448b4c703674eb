"""Images listed in ``metadata.jsonl`` or ``metadata.csv``: the Hub's ImageFolder convention."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from unclip.data import captions
from unclip.data.source import BadSample, Sample
from unclip.errors import DataError

FILE_COLUMN = "file_name"
"""The column of the image's path, relative to the metadata file."""


class MetadataSource:
    """The rows of a metadata file, in its order; a row that cannot be used keeps its place.

    Args:
        path: the ``.jsonl`` or ``.csv`` file.
        with_captions: False for images without captions.
        caption_column: where the captions are; without it, the first of ``text``,
            ``caption``, ``captions``, ``texts`` that a row has. A value is one caption or a
            list of them (in CSV, a JSON list).

    Raises:
        DataError: the file cannot be read, or lacks the columns it needs.
    """

    def __init__(
        self, path: str | Path, with_captions: bool = True, caption_column: str | None = None
    ) -> None:
        self.path = Path(path)
        self.with_captions = with_captions
        columns = (caption_column,) if caption_column else captions.COLUMNS
        try:
            rows = list(_csv(self.path) if self.path.suffix == ".csv" else _jsonl(self.path))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from None
        read = [row for row in rows if not isinstance(row, BadSample)]
        present = {column for row in read for column in row}
        wanted = [(FILE_COLUMN,), columns] if with_captions else [(FILE_COLUMN,)]
        for names in wanted:
            if read and not present.intersection(names):
                have = ", ".join(sorted(map(str, present)))
                raise DataError(f"{self.path}: no column {' or '.join(names)}; it has {have}")
        self._rows = [
            row if isinstance(row, BadSample) else self._compact(number, row, columns)
            for number, row in enumerate(rows, start=1)
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def sample(self, index: int) -> Sample:
        """Return a sample, its image undecoded.

        Raises:
            BadSample: the row is damaged, or its image or its caption is missing.
        """
        row = self._rows[index]
        if isinstance(row, BadSample):
            raise row
        key, value = row
        path = self.path.parent / key
        if not path.is_file():
            raise BadSample(key, "missing image", f"named in {self.path.name}")
        return Sample(key, captions.from_value(value, key) if self.with_captions else (), path)

    def _compact(
        self, number: int, row: Mapping[str, Any], columns: tuple[str, ...]
    ) -> tuple[str, Any] | BadSample:
        """Keep a row's path and captions only."""
        key = row.get(FILE_COLUMN)
        if not isinstance(key, str) or not key.strip():
            return BadSample(f"{self.path.name}, row {number}", f"no {FILE_COLUMN}")
        if Path(key).anchor or ".." in Path(key).parts:
            # A dataset from elsewhere has no business with files outside its folder. On Windows
            # ``C:x`` and ``\x`` are not absolute, and leave it nevertheless.
            return BadSample(key, "image outside the dataset", f"row {number}")
        value = next((row[name] for name in columns if row.get(name) is not None), None)
        return key, value


def _jsonl(path: Path) -> Iterator[dict[str, Any] | BadSample]:
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        key = f"{path.name}, line {number}"
        try:
            row = json.loads(line.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            yield BadSample(key, "metadata is not UTF-8", f"at byte {error.start}")
        except (ValueError, RecursionError) as error:  # also huge numbers, and deep nesting
            yield BadSample(key, "bad metadata line", getattr(error, "msg", str(error)))
        else:
            yield row if isinstance(row, dict) else BadSample(key, "bad metadata line", "no object")


def _csv(path: Path) -> Iterator[dict[str, Any] | BadSample]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            if None in row:
                key = f"{path.name}, line {reader.line_num}"
                yield BadSample(key, "bad metadata line", "more cells than columns")
            else:
                yield row
