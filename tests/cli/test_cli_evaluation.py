"""`evaluate`, `classify`, `attack`, `probe` and `neighbours` as a user meets them."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from unclip.checkpoint import save_stage
from unclip.cli import run
from unclip.clip.clip import Clip
from unclip.presets import preset

# The tiny model reads few tokens.
pytestmark = pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("UNCLIP_CACHE", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluator: the tiny CLIP with other random weights."""
    torch.manual_seed(7)
    clip = Clip.from_config(preset("tiny").clip)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    folder = tmp_path_factory.mktemp("judge") / "clip"
    save_stage(clip, folder)
    return folder


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object, code: int = 0) -> str:
        assert run([str(argument) for argument in arguments]) == code, capsys.readouterr().err
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return call


@pytest.fixture
def labelled(photos: Path, tmp_path: Path) -> Path:
    """The photos in a folder for each colour."""
    root = tmp_path / "labelled"
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 4):
        (root / colour).mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / f"{number}.png", root / colour)
    return root


def test_evaluate_writes_a_report_and_goes_on_where_it_stopped(
    tiny_model: Path, photos: Path, judge: Path, command, tmp_path: Path
) -> None:
    words = ("evaluate", tiny_model, photos, "--evaluator", judge, "-n", 6, "--size", 64)
    out = command(*words, "--set", "decoder.steps=2", "-o", "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert (report["images"], report["options"]["decoder"]["steps"]) == (6, 2)
    measures = {(row["pictures"], row["measure"]) for row in report["rows"]}
    assert {("drawn", "FID"), ("drawn", "KID"), ("drawn", "CMMD")} <= measures
    assert {("real", "CLIP score (cosine)"), ("embeddings", "cosine to z_t")} <= measures
    assert all(row["score"]["n"] >= 3 for row in report["rows"])
    page = (tmp_path / "report/report.html").read_text()
    assert "<table>" in page
    for name in (
        "real-and-drawn.png",
        "spectrum-of-image-embeddings-real-and-drawn-by-the-prior.png",
    ):
        assert name in page
        with Image.open(tmp_path / "report" / name) as picture:
            picture.verify()
    assert "report/report.html" in out
    assert not list((tmp_path / "report").rglob("*.part"))

    first = tmp_path / "report/pictures/000000.png"
    kept = first.stat().st_mtime_ns
    (tmp_path / "report/pictures/000003.png").unlink()
    command(*words, "--set", "decoder.steps=2", "-o", "report")
    assert first.stat().st_mtime_ns == kept
    again = json.loads((tmp_path / "report/report.json").read_text())
    assert again["rows"] == report["rows"], "a picture drawn again is the same picture"

    error = command(*words, "--set", "decoder.steps=3", "-o", "report", code=2)
    assert "another folder" in error


def test_evaluate_takes_options_of_every_stage(
    tiny_model: Path, photos: Path, judge: Path, command, tmp_path: Path
) -> None:
    words = ("evaluate", tiny_model, photos, "--evaluator", judge, "-n", 2, "--size", 256)
    changes = ("--set", "decoder.steps=1", "--set", "upsampler.256.steps=1")
    command(*words, *changes, "-o", "report")
    options = json.loads((tmp_path / "report/report.json").read_text())["options"]
    assert (options["decoder"]["steps"], options["upsampler"]["256"]["steps"]) == (1, 1)


def test_evaluate_refuses_what_cannot_be_judged(
    tiny_model: Path, photos: Path, judge: Path, command, tmp_path: Path
) -> None:
    assert "--evaluator" in command("evaluate", tiny_model, photos, code=2)
    own = ("--evaluator", tiny_model / "clip")
    assert "own CLIP" in command("evaluate", tiny_model, photos, *own, code=2)
    other = ("--evaluator", judge)
    assert "two images" in command("evaluate", tiny_model, photos, *other, "-n", 1, code=2)
    assert "NAME=VALUE" in command("evaluate", tiny_model, photos, *other, "--set", "x", code=2)
    for_itself = command("evaluate", tiny_model, photos, *other, "--set", "seed=1", code=2)
    assert "--set seed: seed is an option of its own here" in for_itself
    assert "prior" in command(
        "evaluate", tiny_model, photos, "--evaluator", tiny_model / "prior", code=2
    )
    unknown = ("--set", "decoder.stebs=2")
    assert "no such field" in command("evaluate", tiny_model, photos, *other, *unknown, code=2)
    size = ("--size", 65)
    assert "cannot be drawn" in command("evaluate", tiny_model, photos, *other, *size, code=2)
    weights = ("--inception", tmp_path / "none.pth")
    assert "torch-fidelity" in command("evaluate", tiny_model, photos, *weights, code=2)
    assert not (tmp_path / "evaluation").exists()


def test_classify_prints_labels_and_json(tiny_model: Path, photos: Path, command) -> None:
    out = command("classify", photos / "0.png", "--labels", "red", "a blue ball", "-m", tiny_model)
    assert out.startswith(str(photos / "0.png"))
    assert out.count("%") == 2
    lines = command(
        "classify", photos, "--labels", "red", "blue", "green", "--json", "-m", tiny_model
    ).splitlines()
    assert len(lines) == 16
    facts = json.loads(lines[0])
    assert sum(facts["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    shares = list(facts["probabilities"].values())
    assert shares == sorted(shares, reverse=True)


def test_classify_takes_sentences_of_ones_own(tiny_model: Path, photos: Path, command) -> None:
    words = ("classify", photos / "1.png", "--labels", "red", "blue", "--json", "-m", tiny_model)
    bare = command(*words, "--sentences", "none")
    assert bare == command(*words, "--template", "{}")
    assert bare != command(*words)
    assert "{}" in command(*words, "--template", "a photo", code=2)


def test_classify_names_what_is_wrong(tiny_model: Path, photos: Path, command) -> None:
    model = ("-m", tiny_model)
    assert "two labels" in command("classify", photos, "--labels", "red", *model, code=2)
    assert "twice" in command("classify", photos, "--labels", "red", "red", *model, code=2)
    words = ("classify", photos, "--labels", "a", "b", *model)
    assert "--top 0: one at least" in command(*words, "--top", 0, code=2)
    missing = command("classify", "none.png", "--labels", "a", "b", *model, code=2)
    assert "none.png" in missing


def test_attack_shows_what_is_read_and_drawn(
    tiny_model: Path, photos: Path, command, tmp_path: Path
) -> None:
    words = ("attack", photos / "0.png", "iPod", "--labels", "ball", "iPod", "-m", tiny_model)
    words = (*words, "--sentences", "none")
    out = command(*words, "--variations", 2, "--size", 64, "--sheet", "sheet.png", "--json")
    plain, written = json.loads(out)
    assert (plain["text"], written["text"]) == ("", "iPod")
    assert sum(written["read"].values()) == pytest.approx(1, abs=1e-4)
    assert plain["read"] != written["read"]
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height
    quick = ("--variations", 1, "--size", 64, "--seed", 3, "--json")
    drawn = [
        json.loads(command(*words, *quick, "--decoder.steps", steps))[0]["drawn"]
        for steps in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert "decoder.steps" in command(*words, "--decoder.steps", 0, code=2)
    assert "word" in command("attack", photos / "0.png", "--labels", "a", "b", code=2)
    there = command(*words, "--sheet", "sheet.png", code=2)
    assert "never overwritten" in there


def test_probe_tells_the_accuracy(tiny_model: Path, labelled: Path, command) -> None:
    facts = json.loads(command("probe", labelled, "--json", "-m", tiny_model))
    assert (facts["tested"], facts["trained"], facts["labels"]) == (4, 12, 4)
    assert 0 <= facts["accuracy"] <= 1
    both = json.loads(command("probe", labelled, "--test", labelled, "--json", "-m", tiny_model))
    assert (both["tested"], both["trained"]) == (16, 16)
    assert "accuracy" in command("probe", labelled, "-m", tiny_model)


def test_probe_names_what_is_wrong(tiny_model: Path, labelled: Path, photos: Path, command) -> None:
    assert "subfolder" in command("probe", photos, "-m", tiny_model, code=2)
    (labelled / "black").mkdir()
    assert "black" in command("probe", labelled, "-m", tiny_model, code=2)
    other = labelled.parent / "other"
    shutil.copytree(labelled, other)
    shutil.rmtree(labelled / "black")
    error = command("probe", labelled, "--test", other, "-m", tiny_model, code=2)
    assert "label black" in error


@pytest.mark.filterwarnings("ignore:files that cannot be read")
def test_neighbours_finds_an_image_itself_and_keeps_its_index(
    tiny_model: Path, photos: Path, command, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(photos, folder)
    words = ("neighbours", folder / "5.png", folder, "-n", 3, "--json", "-m", tiny_model)
    found = [json.loads(line) for line in command(*words).splitlines()]
    assert found[0]["path"] == str(folder / "5.png")
    assert found[0]["cosine"] == pytest.approx(1, abs=1e-4)
    assert len(found) == 3
    (index,) = (tmp_path / "cache/unclip/neighbours").iterdir()
    kept = index.stat().st_mtime_ns
    assert [json.loads(line) for line in command(*words).splitlines()] == found
    assert index.stat().st_mtime_ns == kept
    (folder / "5.png").unlink()
    (folder / "broken.png").write_bytes(b"no picture")
    again = command("neighbours", "a red ball", folder, "--sheet", "found.png", "-m", tiny_model)
    assert "5.png" not in [Path(line.split("  ")[1]).name for line in again.splitlines()]
    assert len(again.splitlines()) == 10
    assert (tmp_path / "found.png").exists()


def test_neighbours_names_what_is_wrong(tiny_model: Path, photos: Path, command) -> None:
    model = ("-m", tiny_model)
    assert "no such folder" in command("neighbours", "a cat", "none", *model, code=2)
    assert "none.png" in command("neighbours", "none.png", photos, *model, code=2)
    assert "empty" in command("neighbours", " ", photos, *model, code=2)
    (photos_list,) = command("neighbours", "gif", photos, "-n", 1, *model).splitlines()
    assert photos_list.endswith(".png"), "a word that is also a file ending is a word"
    long = "a red ball " * 100
    assert command("neighbours", long, photos, "-n", 1, *model) != ""
    Path("there.png").touch()
    there = command("neighbours", "a ball", photos, "--sheet", "there.png", *model, code=2)
    assert "never overwritten" in there
