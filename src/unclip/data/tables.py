"""Parquet tables of keys and captions, read a row group at a time; few of those are kept.

A set of the size of LAION's has more captions than a machine has memory.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from unclip.errors import DataError

KEY_COLUMN = "image_path"
KEPT = 2**30
"""Bytes of row groups to keep, the last one asked for in any case."""


class _Table(NamedTuple):
    """What a table's footer says."""

    ends: list[int]
    """Row before which each row group ends."""
    columns: tuple[str, str]
    """Those of keys and captions."""
    footer: Any
    """As pyarrow parsed it."""


class Tables:
    """Keys and captions of several tables, by table and row.

    Args:
        paths: the tables.
        columns: names the captions' column may have, the preferred first.
        kept: bytes of row groups to keep in memory, in each process that reads.
    """

    def __init__(self, paths: Sequence[Path], columns: tuple[str, ...], kept: int = KEPT) -> None:
        self.paths = tuple(paths)
        self._columns, self._kept = columns, kept
        self._known: dict[int, _Table] = {}
        self._groups: dict[tuple[int, int], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what was read: loader workers read their own."""
        return self.__dict__ | {"_known": {}, "_groups": {}}

    def rows(self, table: int) -> int:
        """How many rows a table has, by its footer.

        Raises:
            DataError: it cannot be read or lacks a column, or pyarrow is not installed.
        """
        return self._footer(table).ends[-1]

    def row(self, table: int, row: int) -> tuple[str, Any]:
        """The key and the caption, or captions, of a row.

        Raises:
            DataError: as `rows`.
        """
        ends = self._footer(table).ends
        number = bisect_right(ends, row)
        keys, captions = self._group(table, number).columns
        inside = row - (ends[number - 1] if number else 0)
        return str(keys[inside].as_py()), captions[inside].as_py()

    def keys(self, table: int) -> Iterator[str]:
        """The keys of a table, row by row; none are kept.

        Raises:
            DataError: as `rows`.
        """
        import pyarrow

        key, _ = self._footer(table).columns
        try:
            for batch in _opened(self.paths[table]).iter_batches(columns=[key]):
                yield from map(str, batch.column(0).to_pylist())
        except (OSError, pyarrow.ArrowException) as error:
            raise _unreadable(self.paths[table], error) from None

    def _footer(self, table: int) -> _Table:
        if table not in self._known:
            path = self.paths[table]
            file = _opened(path)
            names = file.schema_arrow.names
            column = next((name for name in self._columns if name in names), None)
            if column is None or KEY_COLUMN not in names:
                wanted = f"{KEY_COLUMN} and {' or '.join(self._columns)}"
                raise DataError(f"{path}: no columns {wanted}; it has {', '.join(names)}")
            facts = file.metadata
            lengths = [facts.row_group(i).num_rows for i in range(facts.num_row_groups)]
            self._known[table] = _Table(
                list(accumulate(lengths)) or [0], (KEY_COLUMN, column), facts
            )
        return self._known[table]

    def _group(self, table: int, number: int) -> Any:
        """A row group as an arrow table of two columns, the least recently used being let go."""
        import pyarrow

        group = self._groups.pop((table, number), None)
        if group is None:
            _, columns, footer = self._footer(table)
            file = _opened(self.paths[table], footer)
            try:
                read = file.read_row_group(number, columns=[*columns], use_threads=False)
            except (OSError, pyarrow.ArrowException) as error:
                raise _unreadable(self.paths[table], error) from None
            group = read.select([*columns])  # in this order, whatever the file's
            room = self._kept - group.nbytes
            while self._groups and sum(one.nbytes for one in self._groups.values()) > room:
                del self._groups[next(iter(self._groups))]
        self._groups[table, number] = group
        return group


def _opened(path: Path, footer: Any = None) -> Any:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: tables need pyarrow: pip install 'unclip[parquet]'") from None
    try:
        return parquet.ParquetFile(path, metadata=footer)
    except (OSError, pyarrow.ArrowException) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read: {error}")
