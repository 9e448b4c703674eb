"""Folders, metadata files and local shards, and what becomes of broken ones."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path, PurePath, PureWindowsPath

import numpy as np
import pytest
from pictures import bomb, encoded, picture

from unclip.data.folder import FolderSource
from unclip.data.loader import Loader
from unclip.data.metadata import MetadataSource
from unclip.data.open_data import open_data
from unclip.data.shards import ShardSource
from unclip.data.source import Source
from unclip.data.transforms import SquareResize
from unclip.errors import DataError

WHOLE = encoded(picture(0, (64, 64)), "JPEG")

ZOO: dict[str, tuple[bytes, bytes | None, str]] = {
    "truncated.jpg": (WHOLE[: len(WHOLE) // 2], b"a caption", "corrupt image"),
    "nothing.png": (b"", b"a caption", "corrupt image"),
    "text.jpg": (b"this is no image", b"a caption", "corrupt image"),
    "bomb.png": (bomb(), b"a caption", "corrupt image"),
    "silent.jpg": (WHOLE, None, "no caption"),
    "blank.jpg": (WHOLE, b" \n\n", "empty caption"),
    "latin.jpg": (WHOLE, "café".encode("latin-1"), "caption is not UTF-8"),
}
"""File name to image, caption and the reason it is skipped for."""


def windows_name(name: str | Path) -> PurePath:
    """Read the names of a dataset as Windows does."""
    return PureWindowsPath(name) if isinstance(name, str) else name


def went_through(source: Source) -> Loader:
    """A loader that has shown an epoch."""
    loader = Loader(source, 2, SquareResize(size=8), 0)
    for _ in islice(loader.batches(), len(source)):
        pass
    return loader


def captions(source: Source) -> dict[str, tuple[str, ...]]:
    return {(one := source.sample(i)).key: one.captions for i in range(len(source))}


def test_folder(folder: Callable) -> None:
    source = open_data(folder(3))
    assert isinstance(source, FolderSource)
    assert captions(source) == {
        "even/000.png": ("number 0", "the 0th picture"),
        "even/002.png": ("number 2", "the 2th picture"),
        "odd/001.png": ("number 1", "the 1th picture"),
    }
    assert np.array_equal(source.sample(1).image(), np.array(picture(2)))
    assert isinstance(source, Source)


def test_folder_leaves_hidden_and_other_files_out(folder: Callable) -> None:
    root = folder(1)
    for name in (".hidden/1.png", "__MACOSX/1.png", "even/._000.png", "even/notes.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"?")
    (root / "UPPER.JPG").write_bytes(WHOLE)
    (root / "UPPER.txt").write_bytes("\ufeffwith a byte order mark\r\n사과".encode())
    assert captions(open_data(root)) == {
        "UPPER.JPG": ("with a byte order mark", "사과"),
        "even/000.png": ("number 0", "the 0th picture"),
    }


def test_folder_without_captions(folder: Callable) -> None:
    root = folder(2)
    (root / "odd" / "001.txt").unlink()
    source = open_data(root, with_captions=False)
    assert source.sample(1).captions == ()
    batch = next(Loader(source, 2, SquareResize(size=8), 0).batches())
    assert batch.captions is None
    assert batch.images is not None


def test_broken_files_in_a_folder(tmp_path: Path) -> None:
    for name, (image, caption, _) in ZOO.items():
        (tmp_path / name).write_bytes(image)
        if caption is not None:
            (tmp_path / name).with_suffix(".txt").write_bytes(caption)
    with pytest.raises(DataError, match=r"no usable sample among 7 tried: \w+\.\w+: "):
        went_through(open_data(tmp_path))
    (tmp_path / "good.jpg").write_bytes(WHOLE)
    (tmp_path / "good.txt").write_text("good")
    report = went_through(open_data(tmp_path)).report
    assert report.skipped == len(ZOO)
    for name, (_, _, reason) in ZOO.items():
        assert name in report.first(reason)


def test_broken_files_in_a_shard(tmp_path: Path, pack: Callable) -> None:
    members = [("good.jpg", WHOLE), ("good.txt", b"good"), ("lonely.txt", b"no image")]
    for name, (image, caption, _) in ZOO.items():
        members.append((name, image))
        if caption is not None:
            members.append((name.rpartition(".")[0] + ".txt", caption))
    members += [("odd.png", WHOLE), ("odd.json", b"{"), ("list.png", WHOLE), ("list.json", b"[]")]
    report = went_through(open_data(pack("a.tar", members))).report
    expected = {reason for _, _, reason in ZOO.values()} | {"no image in shard", "bad json"}
    assert set(report.counts) == expected
    assert report.skipped == len(ZOO) + 3
    assert report.first("no image in shard") == ("a.tar/lonely",)
    assert set(report.first("bad json")) == {"a.tar/odd", "a.tar/list"}


def test_jsonl(folder: Callable) -> None:
    root = folder(4)
    rows = [
        {"file_name": "even/000.png", "text": "one", "label": 3},
        {"file_name": "odd/001.png", "captions": ["two", " ", "zwei "]},
        {"file_name": "even/002.png", "caption": "three"},
    ]
    (root / "metadata.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    source = open_data(root)
    assert isinstance(source, MetadataSource)
    expected = {
        "even/000.png": ("one",),
        "odd/001.png": ("two", "zwei"),
        "even/002.png": ("three",),
    }
    assert captions(source) == expected
    assert captions(open_data(root / "metadata.jsonl")) == expected
    assert np.array_equal(source.sample(1).image(), np.array(picture(1)))


def test_csv(folder: Callable) -> None:
    root = folder(3)
    (root / "metadata.csv").write_text(
        "file_name,caption,mine\n"
        'even/000.png,"one, with a comma",m0\n'
        'odd/001.png,"[""two"", ""zwei""]",m1\n'
        "even/002.png,[sic] three,m2\n"
    )
    assert captions(open_data(root)) == {
        "even/000.png": ("one, with a comma",),
        "odd/001.png": ("two", "zwei"),
        "even/002.png": ("[sic] three",),
    }
    mine = captions(open_data(root, caption_column="mine"))
    assert list(mine.values()) == [("m0",), ("m1",), ("m2",)]
    with pytest.raises(DataError, match=r"no column yours; it has caption, file_name, mine"):
        open_data(root, caption_column="yours")


def test_broken_rows(folder: Callable) -> None:
    root = folder(2)
    lines: list[tuple[bytes, str | None, str | None]] = [
        (b'{"file_name": "even/000.png", "text": "good"}', None, None),
        (b'{"file_name": "even/000.png", "te', "bad metadata line", "metadata.jsonl, line 2"),
        (b'["even/000.png"]', "bad metadata line", "metadata.jsonl, line 3"),
        (b'{"file_name": "gone.png", "text": "x"}', "missing image", "gone.png"),
        (b'{"text": "x"}', "no file_name", "metadata.jsonl, row 5"),
        (b'{"file_name": "odd/001.png"}', "no caption", "odd/001.png"),
        (b'{"file_name": "odd/001.png", "text": ""}', "empty caption", "odd/001.png"),
        (b'{"file_name": "odd/001.png", "text": 7}', "caption is not text", "odd/001.png"),
        (b'{"file_name": "\xff"}', "metadata is not UTF-8", "metadata.jsonl, line 9"),
        (b'{"file_name": "../x.png", "text": "x"}', "image outside the dataset", "../x.png"),
        (b'{"file_name": "/etc/x.png", "text": "x"}', "image outside the dataset", "/etc/x.png"),
        (b'{"text": ' + b"[" * 100_000, "bad metadata line", "metadata.jsonl, line 12"),
        (b'{"text": ' + b"9" * 5_000 + b"}", "bad metadata line", "metadata.jsonl, line 13"),
    ]
    (root / "metadata.jsonl").write_bytes(b"\n".join(line for line, _, _ in lines))
    report = went_through(open_data(root)).report
    for _, reason, key in lines[1:]:
        assert key in report.first(reason)
    assert report.skipped == 12


@pytest.mark.parametrize("text", ["[" * 100_000, f"[{'9' * 5_000}]"], ids=["deep", "huge"])
def test_captions_that_only_look_like_lists(folder: Callable, text: str) -> None:
    root = folder(1)
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "even/000.png", "text": text}))
    assert captions(open_data(root)) == {"even/000.png": (text,)}


def test_paths_that_leave_the_dataset_on_windows(
    folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(1)
    rows = [{"file_name": name, "text": "x"} for name in ("C:x.png", "\\x.png", "even/000.png")]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr("unclip.data.metadata.Path", windows_name)
    report = went_through(MetadataSource(root / "metadata.jsonl")).report
    assert report.first("image outside the dataset") == ("C:x.png", "\\x.png")


def test_csv_rows_with_too_many_cells(folder: Callable) -> None:
    root = folder(1)
    (root / "metadata.csv").write_text("file_name,text\neven/000.png,good\neven/000.png,a,b\n")
    report = went_through(open_data(root)).report
    assert report.first("bad metadata line") == ("metadata.csv, line 3",)


def test_metadata_without_the_columns(tmp_path: Path) -> None:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"image": "a.png", "text": "a"}\n')
    with pytest.raises(DataError, match="no column file_name; it has image, text"):
        open_data(path)
    path.write_text('{"file_name": "a.png", "label": 1}\n')
    with pytest.raises(DataError, match="no column text or caption or captions or texts"):
        open_data(path)
    assert len(open_data(path, with_captions=False)) == 1


def test_shards(shards: Callable) -> None:
    paths = shards([3, 2])
    source = open_data(paths[0].parent)
    assert isinstance(source, ShardSource)
    assert captions(source) == {
        f"{shard:05}.tar/{shard:05}{i:04}": (f"number {i}",)
        for i, shard in enumerate([0, 0, 0, 1, 1])
    }
    assert np.array_equal(source.sample(4).image(), np.array(picture(4)))
    for pattern in ("{00000..00001}.tar", "*.tar", "{00000,00001}.tar", "0000?.tar"):
        assert captions(open_data(paths[0].parent / pattern)) == captions(source), pattern
    assert len(open_data(paths[1])) == 2


def test_captions_from_json_alone(pack: Callable) -> None:
    path = pack("a.tar", [("0.JPG", WHOLE), ("0.json", b'{"caption": "told", "width": 64}')])
    assert captions(open_data(path)) == {"a.tar/0": ("told",)}


@pytest.mark.parametrize("share", [0.15, 0.5, 0.8, 0.97])
def test_truncated_shard(shards: Callable, share: float) -> None:
    """Whatever lies whole before the cut is used; the cut itself is counted and named."""
    paths = shards([6, 2])
    whole = captions(open_data(paths[0]))
    data = paths[0].read_bytes()
    last = max(data.rfind(b"number"), 0)
    paths[0].write_bytes(data[: int(last * share)])
    report = (loader := went_through(open_data(paths[0].parent))).report
    assert report.first("truncated shard") == (str(paths[0]),)
    assert set(report.counts) <= {"truncated shard", "no caption", "no image in shard"}
    good = [key for batch in islice(loader.batches(), 8) for key in batch.keys]
    used = {key for key in good if key.startswith("00000.tar")}
    assert used <= set(whole)
    assert len(used) >= int(6 * share) - 1


def test_a_shard_that_is_none(tmp_path: Path, shards: Callable) -> None:
    paths = shards([2])
    (paths[0].parent / "00001.tar").write_bytes(b"<html>404</html>" * 100)
    (paths[0].parent / "00002.tar").write_bytes(b"")
    report = went_through(open_data(paths[0].parent)).report
    assert {Path(path).name for path in report.first("unreadable shard")} == {
        "00001.tar",
        "00002.tar",
    }


def test_a_column_is_refused_where_captions_have_none(folder: Callable, shards: Callable) -> None:
    with pytest.raises(DataError, match=r"'story' would name a column .* in \.txt files: leave"):
        open_data(folder(1), caption_column="story")
    (shard,) = shards([1])
    for place in (shard, shard.parent, f"{shard.parent}/*.tar", "https://example.org/0.tar"):
        with pytest.raises(DataError, match=r"here are in \.txt or \.json files of the shards"):
            open_data(place, caption_column="story")


def test_what_is_not_understood(tmp_path: Path, folder: Callable, shards: Callable) -> None:
    with pytest.raises(DataError, match=r"no dataset; looked for metadata\.jsonl .* found nothing"):
        open_data(tmp_path)
    (tmp_path / "notes.pdf").write_text("x")
    with pytest.raises(DataError, match=r"found notes\.pdf"):
        open_data(tmp_path)
    with pytest.raises(DataError, match=r"notes\.pdf: neither a folder nor"):
        open_data(tmp_path / "notes.pdf")
    with pytest.raises(DataError, match="nowhere: nothing is there"):
        open_data(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"\*\.tar: nothing is there"):
        open_data(tmp_path / "*.tar")
    with pytest.raises(DataError, match="braces do not match"):
        open_data(tmp_path / "{0..3.tar")
    with pytest.raises(DataError, match="only http"):
        open_data("pipe:cat shard.tar")
    with pytest.raises(DataError, match="only http"):
        open_data("s3://bucket/{0..3}.tar")
    root = folder(1)
    (root / "even" / "metadata.csv").write_text("file_name,text\n000.png,x\n")
    with pytest.raises(DataError, match="its metadata lies in even; give one of these folders"):
        open_data(root)
    assert captions(open_data(root / "even")) == {"000.png": ("x",)}
    paths = shards([1])
    (paths[0].parent / "metadata.csv").write_text("file_name,text\n000.png,x\n")
    with pytest.raises(DataError, match=r"holds metadata\.csv, 00000\.tar; name the one"):
        open_data(paths[0].parent)
