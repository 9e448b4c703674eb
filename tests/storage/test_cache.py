from pathlib import Path

import pytest
from PIL import Image

from unclip.checkpoint import load_stage
from unclip.evaluation.neighbours import index_folder
from unclip.storage.cache import cache_folder
from unclip.types import finish


def test_the_first_of_three_places_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    monkeypatch.setenv("UNCLIP_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.setenv("UNCLIP_CACHE", "")
    assert cache_folder() == Path("/cache/unclip")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "unclip"


def test_indexes_of_neighbours_lie_there(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "own"))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "images" / "red.png")
    finish(index_folder(load_stage(tiny_model / "clip"), "f", tmp_path / "images"))
    assert len(list((tmp_path / "own" / "neighbours").iterdir())) == 1
