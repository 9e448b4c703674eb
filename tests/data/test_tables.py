"""Parquet tables read a row group at a time: the same rows, and a bounded memory."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from unclip.data.loader import Loader
from unclip.data.retrieval import RetrievalSource
from unclip.data.tables import Tables
from unclip.errors import DataError

ROWS, GROUP = (23, 7), 5


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Two tables; groups of five rows, the last ones shorter."""
    written = []
    for number, rows in enumerate(ROWS):
        texts = [None if row == 3 else f"a thing {number}-{row}" for row in range(rows)]
        keys = [f"{number}{row:03}" for row in range(rows)]
        table = pyarrow.table({"caption": texts, "width": [1] * rows, "image_path": keys})
        written.append(tmp_path / f"{number}.parquet")
        parquet.write_table(table, written[-1], row_group_size=GROUP)
    return written


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The row groups read, in order."""
    done: list[int] = []
    plain = parquet.ParquetFile.read_row_group

    def noted(self, number, *arguments, **options):
        done.append(number)
        return plain(self, number, *arguments, **options)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", noted)
    return done


@pytest.mark.parametrize("kept", [0, 200, 2**20])
def test_any_order_gives_the_rows_of_the_files(paths: list[Path], kept: int) -> None:
    tables = Tables(paths, ("text", "caption"), kept)
    places = [(table, row) for table, rows in enumerate(ROWS) for row in range(rows)]
    for place in np.random.default_rng(0).permutation(len(places)):
        table, row = places[place]
        expected = parquet.read_table(paths[table]).to_pylist()[row]
        assert tables.row(table, row) == (expected["image_path"], expected["caption"])
    assert [tables.rows(table) for table in (0, 1)] == [*ROWS]
    assert [*tables.keys(1)] == [f"1{row:03}" for row in range(7)]


def test_few_row_groups_are_kept_and_those_used_last(paths: list[Path], reads: list[int]) -> None:
    one = parquet.ParquetFile(paths[0]).read_row_group(0, columns=["caption", "image_path"])
    reads.clear()
    tables = Tables(paths, ("caption",), kept=2 * one.nbytes + 20)
    for row in (0, 5, 1, 10, 2, 6):
        tables.row(0, row)
    assert reads == [0, 1, 2, 1], "group 0 was used last when 2 came, so 1 had to go"
    assert len(tables._groups) == 2
    copy = pickle.loads(pickle.dumps(tables))
    assert not copy._groups, "a worker reads its own"
    assert copy.row(0, 22) == tables.row(0, 22)


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    schema = pyarrow.schema({"caption": pyarrow.string(), "image_path": pyarrow.string()})
    parquet.write_table(schema.empty_table(), tmp_path / "empty.parquet")
    assert Tables([tmp_path / "empty.parquet"], ("caption",)).rows(0) == 0


def test_a_table_damaged_inside_is_named(paths: list[Path]) -> None:
    tables = Tables(paths, ("caption",))
    assert tables.row(0, 20)
    data = bytearray(paths[0].read_bytes())
    data[4:300] = bytes(296)
    paths[0].write_bytes(data)
    with pytest.raises(DataError, match=r"0\.parquet: cannot be read"):
        tables.row(0, 0)
    with pytest.raises(DataError, match=r"0\.parquet: cannot be read"):
        list(tables.keys(0))


def test_a_shuffled_batch_reads_each_group_once(
    tmp_path: Path, paths: list[Path], reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are those of a source that keeps everything, from any batch on."""
    for name in ("img_emb", "metadata"):
        (tmp_path / name).mkdir()
    for number, (path, rows) in enumerate(zip(paths, ROWS, strict=True)):
        path.rename(tmp_path / "metadata" / f"metadata_{number}.parquet")
        rows_of = np.random.default_rng(number).standard_normal((rows, 4))
        np.save(tmp_path / "img_emb" / f"img_emb_{number}.npy", rows_of)

    def batches(kept: int, start: int) -> list[tuple]:
        source = RetrievalSource(tmp_path)
        monkeypatch.setattr(source._tables, "_kept", kept)
        drawn = Loader(source, 16, None, seed=4).batches(start)
        return [
            (batch.keys, batch.captions, batch.image_embedding.tolist())
            for _, batch in zip(range(3), drawn, strict=False)
        ]

    everything = batches(2**20, start=0)
    reads.clear()
    assert batches(0, start=0) == everything
    # Three batches of seven groups; each of two bad rows, twice at most, is a jump and one back.
    assert len(reads) <= 3 * 7 + 2 * 2 * 2
    assert batches(0, start=1)[:2] == everything[1:]
