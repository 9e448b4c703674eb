"""Embeddings as clip-retrieval writes them: read, checked against a CLIP, joined with images."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

from unclip.data import retrieval
from unclip.data.folder import FolderSource
from unclip.data.loader import Loader
from unclip.data.open_data import open_data
from unclip.data.retrieval import JoinedSource, RetrievalSource
from unclip.data.source import BadSample
from unclip.errors import DataError

WIDTH = 8


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Words:
    """A text encoder whose answers are known."""

    def __init__(self, seed: int = 0, normalise: bool = True) -> None:
        self.config = SimpleNamespace(embedding=WIDTH, normalise=normalise)
        self._seed = seed

    def rows(self, captions: list[str]) -> np.ndarray:
        seeds = [[self._seed, *caption.encode()] for caption in captions]
        return unit(np.stack([np.random.default_rng(s).standard_normal(WIDTH) for s in seeds]))

    def encode_text(self, captions, *, warn):
        return SimpleNamespace(embedding=torch.from_numpy(self.rows(captions)))


def write(folder: Path, number: str, keys: list[str], texts: list[str | None], seed: int) -> None:
    for name in ("img_emb", "text_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images = unit(np.random.default_rng(seed).standard_normal((len(keys), WIDTH)))
    np.save(folder / "img_emb" / f"img_emb_{number}.npy", images.astype(np.float16))
    said = Words().rows([text or "" for text in texts])
    np.save(folder / "text_emb" / f"text_emb_{number}.npy", said.astype(np.float16))
    table = pyarrow.table({"image_path": keys, "caption": texts, "width": [1] * len(keys)})
    parquet.write_table(table, folder / "metadata" / f"metadata_{number}.parquet")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "kept"
    write(folder, "0", ["000000000", "000000001", "000000002"], ["a dog", None, "a cat"], seed=1)
    write(folder, "1", ["000010000"], ["a cow"], seed=2)
    # Sorted as text, 10 would come before 2.
    write(folder, "10", ["000100000", "000100001"], ["an owl", "a rat"], seed=3)
    return folder


def test_rows_come_with_their_captions(kept: Path) -> None:
    source = open_data(kept)
    assert isinstance(source, RetrievalSource)
    assert len(source) == 6
    for index, number, row, text in ((0, 0, 0, "a dog"), (3, 1, 0, "a cow"), (5, 10, 1, "a rat")):
        sample = source.sample(index)
        raw = np.load(kept / "img_emb" / f"img_emb_{number}.npy")[row].astype(np.float32)
        assert sample.captions == (text,)
        assert sample.embedding.dtype == np.float32
        assert np.abs(sample.embedding - raw).max() < 1e-3
        assert np.linalg.norm(sample.embedding) == pytest.approx(1, abs=1e-6)
    with pytest.raises(BadSample, match="000000001: no caption"):
        source.sample(1)


def test_the_loader_takes_them_without_images(kept: Path) -> None:
    for workers in (0, 1):
        loader = Loader(RetrievalSource(kept), 5, None, 0, workers=workers)
        batch = next(loader.batches())
        assert batch.images is None
        assert batch.image_embedding.shape == (5, WIDTH)
        assert set(batch.captions) == {"a dog", "a cat", "a cow", "an owl", "a rat"}


def test_they_are_checked_against_the_clip(kept: Path) -> None:
    source = RetrievalSource(kept)
    assert source.check(Words())
    with pytest.raises(DataError, match=r"of another CLIP: .* mean cosine of -?0\.\d\d"):
        source.check(Words(seed=1))
    with pytest.raises(DataError, match=r"the lengths .* are lost"):
        source.check(Words(normalise=False))
    wider = Words()
    wider.config.embedding = 9
    with pytest.raises(DataError, match="embeddings of size 8, the CLIP makes 9"):
        source.check(wider)
    (kept / "text_emb" / "text_emb_0.npy").unlink()
    assert source.check(Words()), "by the first file that is there, and its own captions"
    for file in (kept / "text_emb").iterdir():
        file.unlink()
    assert not RetrievalSource(kept).check(Words(seed=1)), "nothing to compare"
    silent = kept.with_name("silent")
    write(silent, "0", ["000000000"], [None], seed=1)
    assert not RetrievalSource(silent).check(Words(seed=1)), "no caption to compare by"


def test_images_are_joined_by_name(kept: Path, folder: Callable, tmp_path: Path) -> None:
    images = FolderSource(folder(3))
    write(tmp_path / "joined", "0", ["x/002.jpg", "y/000.png"], ["b", "a"], seed=4)
    joined = JoinedSource(images, RetrievalSource(tmp_path / "joined"))
    rows = np.load(tmp_path / "joined" / "img_emb" / "img_emb_0.npy").astype(np.float32)
    found = {}
    for index, key in enumerate(images._keys):
        if "001" in key:
            with pytest.raises(BadSample, match="no embedding"):
                joined.sample(index)
            continue
        sample = joined.sample(index)
        assert sample.captions == images.sample(index).captions
        found[Path(key).stem] = sample.embedding
    assert np.abs(found["002"] - rows[0]).max() < 1e-3
    assert np.abs(found["000"] - rows[1]).max() < 1e-3
    write(tmp_path / "twice", "0", ["x/000.png", "y/000.png"], ["a", "a"], seed=4)
    with pytest.raises(DataError, match="'000' is the name of two images"):
        JoinedSource(images, RetrievalSource(tmp_path / "twice"))


@pytest.mark.parametrize("digest", [b"12345678", None], ids=["all alike", "as they are"])
def test_joining_goes_by_names_whatever_their_digests(
    digest: bytes | None, folder: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if digest is not None:
        monkeypatch.setattr(retrieval, "_digest", lambda stem: digest)
    write(tmp_path / "joined", "0", ["2.jpg", "002.jpg", "000.png"], ["b"] * 3, seed=4)
    write(tmp_path / "joined", "1", ["x/001.jpg", "\u1112\u1161.jpg"], ["b"] * 2, seed=5)
    joined = JoinedSource(FolderSource(folder(3)), RetrievalSource(tmp_path / "joined"))
    rows = {}
    for number in "01":
        array = np.load(tmp_path / "joined" / "img_emb" / f"img_emb_{number}.npy")
        table = parquet.read_table(tmp_path / "joined" / "metadata" / f"metadata_{number}.parquet")
        rows |= {Path(key.as_py()).stem: row for key, row in zip(table[0], array, strict=True)}
    for index in range(3):
        sample = joined.sample(index)
        assert np.abs(sample.embedding - rows[Path(sample.key).stem]).max() < 1e-3


def test_of_a_name_few_bytes_are_kept(folder: Callable, tmp_path: Path) -> None:
    names = [f"{'long ' * 40}{number}.jpg" for number in range(500)]
    write(tmp_path / "joined", "0", names, ["a"] * len(names), seed=4)
    joined = JoinedSource(FolderSource(folder(1)), RetrievalSource(tmp_path / "joined"))
    joined.embeddings = None
    assert len(pickle.dumps(joined)) < 16 * len(names) + 2000, "a worker gets a copy of it"


def test_damage_is_named(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="embeddings, no images"):
        open_data(kept, with_captions=False)
    with pytest.raises(DataError, match=r"no columns image_path and story; it has"):
        RetrievalSource(kept, caption_column="story").sample(0)
    write(kept, "11", ["a", "b"], ["one", "two"], seed=5)
    np.save(kept / "img_emb" / "img_emb_11.npy", np.ones((3, WIDTH), np.float16))
    with pytest.raises(DataError, match=r"2 rows for the 3 of img_emb_11\.npy"):
        RetrievalSource(kept).sample(6)
    with pytest.raises(DataError, match=r"2 rows for the 3 of img_emb_11\.npy"):
        list(RetrievalSource(kept).row_keys())
    (kept / "img_emb" / "img_emb_12.npy").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"no metadata/metadata_12\.parquet"):
        RetrievalSource(kept)
    (kept / "metadata" / "metadata_12.parquet").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"img_emb_12\.npy: cannot be read"):
        RetrievalSource(kept)


def test_without_pyarrow_the_way_out_is_told(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"pip install 'unclip\[parquet\]'"):
        RetrievalSource(kept).sample(0)
