"""Every command of README and docs is run: drawing with the shipped model, training with `tiny`."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from unclip.cli import run
from unclip.loading import shipped

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "recipes/emoji/README.md",
]
OUTSIDE = ("make ", "git ", "python ", "pip ", "torchrun ", "accelerate ", "tensorboard ", "nice ")
"""Programs whose lines are run by CI itself, or need a network or several machines."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and not line.startswith(OUTSIDE):
                yield words


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the pages' commands make sense: it has captioned ``photos``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("UNCLIP_CACHE", raising=False)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 4):
        image = Image.new("RGB", (256, 256), "white")
        ImageDraw.Draw(image).ellipse((40, 40, 200, 160 + 4 * number), fill=colour)
        image.save(photos / f"{number}.png")
        (photos / f"{number}.txt").write_text(f"a {colour} ball\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands(page: Path, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(page):
        assert words[0] == "unclip", f"{words}: not one of {OUTSIDE}"
        if words[1] == "train":
            if "--from" not in words:
                words += ["--preset", "tiny"]
            words += ["--set", "training.steps=2", "--set", "training.batch=8"]
        assert run(words[1:]) == 0, f"{words}: {capsys.readouterr().err}"


@pytest.mark.slow
def test_python_of_the_readme(workplace: Path) -> None:
    assert shipped(), "a model ships with the package"
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    assert (workplace / "cat.png").exists()


@pytest.mark.slow
def test_python_of_the_training_page(workplace: Path) -> None:
    shutil.copytree(shipped()["emoji"], "mine")
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs/training.md", "python"):
        exec(compile(block, "training.md", "exec"), names)
    assert {path.name for path in (workplace / "runs").iterdir()} == {"prior", "calmer"}


def test_sections_that_docstrings_cite_have_a_row() -> None:
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d[\d.]*) \|", page, re.MULTILINE)
    for path in sorted((ROOT / "src/unclip").rglob("*.py")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "arXiv" in line or "its paper" in line:  # another paper's
                continue
            for cited in re.findall(r"§(\d+(?:\.\d+)?)", line):
                known = any(row == cited or row.startswith(f"{cited}.") for row in rows)
                assert known, f"{path.name} cites §{cited}, which has no row in docs/paper.md"


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
