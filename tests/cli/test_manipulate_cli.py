"""The commands that start from images, as a user meets them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.cli import run
from unclip.images import read_recipe

QUICK = ["--size", "64", "--decoder.steps", "2"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    for number, colour in enumerate(("red", "green", "blue", "yellow")):
        image = Image.new("RGB", (80, 64), "white")
        image.paste(colour, (20, 10 + 5 * number, 50, 50))
        image.save(f"{colour}.png")


def pixels(path: Path | str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def unclip(tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command with the tiny model; what it printed."""

    def call(*words: str) -> str:
        code = run([*words, "-m", str(tiny_model)])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert captured.err == ""
        return captured.out

    return call


@pytest.fixture
def refused(tiny_model: Path, capsys: pytest.CaptureFixture[str]):
    """Run a command that must fail; its one line."""

    def call(*words: str) -> str:
        assert run([*words, "-m", str(tiny_model)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


COMMANDS = {
    "vary": (["red.png", "-n", "2", "--eta", "0.5"], 2),
    "interpolate": (["red.png", "blue.png", "--frames", "3"], 3),
    "mix": (["red.png", "a rocket", "--weights", "2", "--weights", "1"], 1),
    "edit": (["red.png", "--from", "a red ball", "--to", "a blue ball", "--frames", "2"], 2),
    "inpaint": (["red.png", "--box", "5", "5", "30", "30", "--prompt", "a ball"], 1),
    "reconstruct": (["red.png"], 1),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_pictures_are_saved_with_recipe_and_made_again(name: str, unclip) -> None:
    words, count = COMMANDS[name]
    lines = unclip(name, *words, *QUICK, "-o", "out", "--json", "--sheet", "sheet.png")
    *pictures, sheet = [json.loads(line) for line in lines.splitlines()]
    assert len(pictures) == count
    assert sheet == {"sheet": "sheet.png"}
    last = Path(pictures[-1]["path"])
    assert read_recipe(last)["command"] == name
    assert unclip("again", str(last), "-o", "same.png") == "same.png\n"
    assert np.array_equal(pixels(last), pixels("same.png"))
    assert read_recipe(last) == read_recipe("same.png")


def test_upscale(unclip) -> None:
    unclip("upscale", "red.png", "--size", "256", "-o", "large.png")
    assert pixels("large.png").shape == (256, 320, 3)


IDLE = {
    "vary": ["--prior.steps", "--candidates"],
    "interpolate": ["-n", "--images"],
    "edit": ["--prior.steps", "--candidates", "-n", "--width"],
    "inpaint": ["--width"],
    "upscale": ["--prior.steps", "--decoder.steps", "-n", "--batch", "--width"],
    "reconstruct": ["--prior.steps", "--candidates", "-n"],
    "decode": ["--prior.steps", "--candidates"],
    "embed": ["--decoder.steps", "--upsampler.256.steps", "--size", "--tile", "--width", "-n"],
    "sweep": ["-n", "--images"],
}
NEEDED = {"edit": ["--to", "a ball"], "embed": ["-o", "rows.npy"], "sweep": ["--x", "seed=1,2"]}


@pytest.mark.parametrize("command", IDLE)
def test_options_that_do_nothing_are_neither_listed_nor_taken(
    command: str, refused, capsys: pytest.CaptureFixture[str]
) -> None:
    for option in IDLE[command]:
        line = refused(command, "red.png", *NEEDED.get(command, []), option, "4")
        assert line == f"unclip: {option} does nothing here: it is an option of other commands"
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    for option in (*IDLE[command], "--model", "--output"):
        stage = option.partition(".")[0]
        assert (f" {stage}" in text) == (option not in IDLE[command])


def test_one_picture_takes_a_name_several_a_folder(unclip, refused) -> None:
    unclip("vary", "red.png", *QUICK, "-o", "one.png")
    assert "give a folder" in refused("vary", "red.png", "-n", "2", *QUICK, "-o", "two.png")
    assert "never overwritten" in refused("vary", "red.png", *QUICK, "-o", "one.png")
    unclip("vary", "red.png", *QUICK)
    assert Path("red-varied-seed-0.png").exists()


def test_embed_and_decode(unclip, refused) -> None:
    Path("photos").mkdir()
    for colour in ("red", "blue"):
        Path(f"{colour}.png").rename(f"photos/{colour}.png")
    assert unclip("embed", "photos", "a rocket", "-o", "rows.safetensors") == (
        "rows.safetensors  3 × 32\n"
    )
    unclip("decode", "rows.safetensors", *QUICK, "-o", "drawn", "--rows", "0", "--rows", "2")
    assert sorted(path.name for path in Path("drawn").iterdir()) == [
        "rows-decoded-row-0-seed-0.png",
        "rows-decoded-row-2-seed-0.png",
    ]
    words = ("reconstruct", "green.png", "--embeddings", "rows.safetensors", *QUICK)
    lines = unclip(*words, "--dimensions", "1", "--dimensions", "32", "-o", "parts")
    assert [line.split("  ")[1] for line in lines.splitlines()] == ["1 of 32", "32 of 32"]
    assert "NAME.npy" in refused("embed", "photos", "-o", "rows.txt")
    assert "never overwritten" in refused("embed", "photos", "-o", "rows.safetensors")
    unclip("embed", "photos", "-o", "new/rows.npy")
    assert np.load("new/rows.npy").shape == (2, 32)


def test_a_grid_between_four(unclip) -> None:
    four = ("red.png", "green.png", "blue.png", "yellow.png")
    words = ("--grid", "--frames", "2", "--sheet", "square.png", "-o", "out")
    unclip("interpolate", *four, *words, *QUICK)
    assert len(list(Path("out").iterdir())) == 4


def test_gif(unclip, refused) -> None:
    words = ("red.png", "blue.png", "--frames", "3", *QUICK, "-o", "frames")
    unclip("interpolate", *words, "--animation", "film.gif", "--fps", "4")
    with Image.open("film.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (3, 250)
    assert "never overwritten" in refused("interpolate", *words, "--animation", "film.gif")
    assert "NAME.gif or NAME.mp4" in refused("interpolate", *words, "--animation", "film.avi")
    assert "fps must be above 0" in refused("interpolate", *words, "--fps", "0")


def test_mp4(unclip) -> None:
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    words = ("red.png", "blue.png", "--frames", "5", *QUICK, "-o", "frames")
    unclip("interpolate", *words, "--animation", "film.mp4", "--fps", "5")
    frames, seconds = ffmpeg.count_frames_and_secs("film.mp4")
    assert (frames, seconds) == (5, pytest.approx(1, abs=0.05))


def test_mp4_needs_its_package(refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    line = refused("interpolate", "red.png", "blue.png", "--animation", "film.mp4")
    assert "unclip[video]" in line


def test_sweep(unclip, refused) -> None:
    unclip("sweep", "a ball", "--x", "decoder.steps=1,2", "--y", "seed=0,1", *QUICK, "-o", "a.png")
    words = ("--command", "vary", "--x", "eta=0,1", "--set", "fit=pad", *QUICK)
    unclip("sweep", "red.png", *words, "-o", "b.png")
    assert read_recipe("b.png")["how"]["how"] == {"fit": "pad"}
    assert unclip("again", "b.png", "-o", "c.png") == "c.png\n"
    assert np.array_equal(pixels("b.png"), pixels("c.png"))
    assert "OPTION=VALUE" in refused("sweep", "a ball", "--x", "seed")
    assert "no such field" in refused("sweep", "a ball", "--x", "sead=1,2")
    wrong = refused("sweep", "red.png", "--x", "eta=0,1", "--set", "fit")
    assert "--set fit: write NAME=VALUE, such as --set fit=pad" in wrong
    assert "images has no effect" in refused("sweep", "a ball", "--x", "images=1,2")


def test_inputs_are_checked_or_travel(unclip, refused) -> None:
    unclip("vary", "red.png", *QUICK, "-o", "plain.png")
    unclip("vary", "red.png", *QUICK, "-o", "full.png", "--embed-inputs")
    Path("red.png").write_bytes(Path("blue.png").read_bytes())
    assert "is not the red.png that was used" in refused("again", "plain.png", "-o", "x.png")
    unclip("again", "full.png", "-o", "same.png")
    Path("red.png").unlink()
    assert "name it with --input" in refused("again", "plain.png", "-o", "x.png")


def test_generated_pictures_are_made_again(unclip, refused) -> None:
    unclip("generate", "a ball", "--size", "64", "--seed", "3", "-o", "ball.png")
    unclip("again", "ball.png", "-o", "same.png")
    assert np.array_equal(pixels("ball.png"), pixels("same.png"))
    assert "no recipe inside" in refused("again", "red.png", "-o", "x.png")


def test_the_model_of_a_recipe_is_asked_for(unclip, capsys: pytest.CaptureFixture[str]) -> None:
    unclip("vary", "red.png", *QUICK, "-o", "varied.png")
    assert run(["again", "varied.png", "-o", "x.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unclip: varied.png was drawn by the model 'tiny', which is not found")
    assert line.endswith("give its folder with --model")


def test_a_sheet_is_not_made_again(unclip, capsys: pytest.CaptureFixture[str]) -> None:
    unclip("generate", "a ball", "--size", "64", "-o", "ball.png", "--sheet", "sheet.png")
    assert run(["again", "sheet.png", "-o", "x.png"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unclip: sheet.png is a sheet, which has no recipe of its own")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["vary", "nowhere.png"], "nowhere.png: no such file"),
        (["vary", "red.png", "--strength", "2"], "strength"),
        (["edit", "red.png"], "--to"),
        (["edit", "red.png", "--to", " "], "the prompt is empty"),
        (["inpaint", "red.png"], "nothing is masked"),
        (["mix"], "nothing to mix"),
        (["interpolate", "red.png", "blue.png", "--fps", "4"], "fps does nothing without"),
        (["reconstruct", "red.png", "--embeddings", "blue.png"], "nothing without dimensions"),
        (["interpolate", "red.png"], "two pictures"),
        (["vary", "red.png", "--eta", "1", "--decoder.sampler", "unipc"], "only ddim"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(words: list[str], said: str, refused) -> None:
    assert said in refused(*words, "-o", "out")
