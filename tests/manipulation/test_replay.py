"""Everything that is drawn can be drawn again from its PNG and the files it names."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import CheckpointError, ImageError, OptionError
from unclip.images import read_recipe, save_png
from unclip.manipulation.commands import COMMANDS
from unclip.manipulation.embeddings import Embeddings, embed
from unclip.manipulation.inputs import Input, find_inputs, read_input, read_item
from unclip.manipulation.options import (
    Edit,
    Inpaint,
    Interpolate,
    Reconstruct,
    Sweep,
    Vary,
)
from unclip.manipulation.replay import again
from unclip.manipulation.sweeps import sweep
from unclip.manipulation.text_diff import edit
from unclip.manipulation.variations import vary
from unclip.options import GenerateOptions
from unclip.types import finish

HOW = {
    "vary": Vary(eta=0.5),
    "interpolate": Interpolate(frames=3),
    "edit": Edit(to="a blue ball"),
    "inpaint": Inpaint(box=(4, 4, 20, 20), prompt="a ball"),
    "reconstruct": Reconstruct(dimensions=(2, 8)),
}


@pytest.fixture
def files(model, photo, tmp_path) -> dict[str, tuple]:
    """What each command takes."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for colour in ("red", "blue"):
        (folder / f"{colour}.png").write_bytes(photo(colour).read_bytes())
    rows = folder / "rows.safetensors"
    values = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    Embeddings(values, ("x",) * 40).save(rows)
    red = folder / "red.png"
    return dict.fromkeys(COMMANDS, (red,)) | {
        "interpolate": (red, folder / "blue.png"),
        "mix": (red, "a rocket"),
        "reconstruct": (red, rows),
        "decode": (rows,),
    }


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command(name: str, model, quick, files, pixels, tmp_path: Path) -> None:
    command, items = COMMANDS[name], files[name]
    how = HOW.get(name) or command.how()
    if name == "decode":
        how = command.how(rows=(3, 1))
    size = 256 if name == "upscale" else 64
    options = quick(size=size, seed=5, images=2, decoder={"steps": 2})
    made = finish(command.make(model, *items, how=how, options=options))
    path = made[-1].save(tmp_path / "made.png")
    recipe = read_recipe(path)
    assert recipe["command"] == name
    assert str(tmp_path) not in json.dumps(recipe), "no paths of this machine"
    folders = (tmp_path / "inputs",)
    repeated = finish(again(model, recipe, name="made.png", folders=folders))
    assert np.array_equal(pixels(repeated), pixels(made[-1]))
    assert repeated.recipe == made[-1].recipe


def test_generated_pictures_too(model, quick, pixels, tmp_path: Path) -> None:
    drawn = model.generate("a red apple", quick(images=2, batch=1))
    path = drawn[1].save(tmp_path / "apple.png")
    repeated = finish(again(model, read_recipe(path), name="apple.png"))
    assert np.array_equal(pixels(repeated), pixels(drawn[1]))


def test_other_inputs_are_refused(model, quick, files, tmp_path: Path) -> None:
    (made,) = finish(vary(model, *files["vary"], options=quick()))
    recipe = read_recipe(made.save(tmp_path / "made.png"))
    with pytest.raises(ImageError, match=r"red.png \(SHA-256 .* is needed"):
        finish(again(model, recipe, name="made.png", folders=(tmp_path,)))
    red = tmp_path / "inputs" / "red.png"
    (tmp_path / "elsewhere.png").write_bytes(red.read_bytes())
    red.write_bytes((tmp_path / "inputs" / "blue.png").read_bytes())
    with pytest.raises(ImageError, match=r"is not the red\.png that was used"):
        finish(again(model, recipe, name="made.png", folders=(tmp_path / "inputs",)))
    given = (tmp_path / "elsewhere.png",)
    finish(again(model, recipe, name="made.png", folders=(tmp_path / "inputs",), inputs=given))


def test_inputs_can_travel_inside(model, quick, files, pixels, tmp_path: Path) -> None:
    (made,) = finish(vary(model, *files["vary"], options=quick()))
    path = made.save(tmp_path / "made.png", embed_inputs=True)
    repeated = finish(again(model, read_recipe(path), name="made.png"))
    assert np.array_equal(pixels(repeated), pixels(made))
    assert "data" not in read_recipe(made.save(tmp_path / "bare.png"))["items"][0]


def test_a_large_input_fits_into_a_png(model, tmp_path: Path) -> None:
    big = Input("big.bin", np.random.default_rng(0).bytes(3 * 2**20))
    save_png(Image.new("RGB", (8, 8)), tmp_path / "a.png", {"items": [big.record(embed=True)]})
    (found,) = find_inputs(read_recipe(tmp_path / "a.png")["items"], ())
    assert found == big


def test_pictures_in_memory_can_travel_inside(model, quick, pixels, tmp_path: Path) -> None:
    (made,) = finish(vary(model, Image.new("RGB", (70, 70), "red"), options=quick()))
    path = made.save(tmp_path / "made.png", embed_inputs=True)
    repeated = finish(again(model, read_recipe(path), name="made.png"))
    assert np.array_equal(pixels(repeated), pixels(made))


def test_damaged_recipes(model, quick, files, tmp_path: Path) -> None:
    (made,) = finish(vary(model, *files["vary"], options=quick()))
    path = made.save(tmp_path / "made.png", embed_inputs=True)
    recipe = read_recipe(path)

    def refuse(match: str, error: type[Exception] = ImageError, **changed) -> None:
        with pytest.raises(error, match=match):
            finish(again(model, recipe | changed, name="made.png"))

    refuse("another is|is another", CheckpointError, fingerprint="0")
    refuse("none this version", command="paint")
    refuse("none this version", picture="first")
    refuse("picture 7 of 1", picture=7)
    refuse("options are missing", how=None)
    refuse("no such field", OptionError, how={"etta": 1})
    refuse("not what the recipe says", items=[recipe["items"][0] | {"sha256": "0"}])
    refuse("is damaged", items=[recipe["items"][0] | {"data": "%"}])
    refuse("made from is missing", items=["red.png"])
    refuse("made from is missing", items=None)
    refuse("is damaged: vary of 2 items", items=2 * recipe["items"])
    refuse("is damaged: vary of 0 items", items=[])
    away = {"name": "../../etc/passwd", "sha256": "0"}
    refuse(r"^passwd \(SHA-256 0…\) is needed", items=[away])


def test_words_are_prompts_unless_they_name_files(photo, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_item("a cat") == "a cat"
    assert read_item("x" * 5000) == "x" * 5000
    assert isinstance(read_item(str(photo("red"))), Input)
    (tmp_path / "plain").write_bytes(photo("red").read_bytes())
    assert isinstance(read_item("plain"), Input)
    with pytest.raises(ImageError, match="no such file"):
        read_item("cat.jpeg")


def test_unreadable_inputs_are_named() -> None:
    held = io.BytesIO()
    Image.new("RGB", (4, 4)).save(held, "PNG")
    broken = Input("holiday.png", held.getvalue()[:40])
    with pytest.raises(ImageError, match=r"holiday\.png"):
        _ = broken.image


def test_a_sweep_is_what_its_cells_are(model, quick, pixels) -> None:
    how = Sweep(x="seed", x_values=("3", "4"), y="decoder.steps", y_values=("1", "2"))
    (made,) = finish(sweep(model, "a ball", how=how, options=quick()))
    cell = model.generate("a ball", quick(seed=4, decoder={"steps": 2}))[0]
    shown = cell.image.resize((128, 128), Image.Resampling.NEAREST)
    grid = np.asarray(made.image)
    corner = grid[-8 - 128 : -8, -8 - 128 : -8]
    assert np.array_equal(corner, np.asarray(shown))
    repeated = finish(again(model, made.recipe, name="grid.png"))
    assert np.array_equal(pixels(repeated), pixels(made))


def test_a_sweep_over_a_manipulation(model, photo, quick) -> None:
    how = Sweep(command="vary", x="eta", x_values=("0", "0.5"), how={"fit": "pad"})
    (made,) = finish(sweep(model, photo("red"), how=how, options=quick()))
    assert made.image.width > 2 * 128


def test_a_sweep_over_an_edit_shows_where_it_leads(model, photo, quick) -> None:
    how = Edit(to="a blue ball", theta=0.5, frames=2)
    goal = finish(edit(model, photo("red"), how=how, options=quick()))[-1]
    swept = {"command": "edit", "how": {"to": "a blue ball", "frames": 2}}
    way = Sweep(**swept, x="theta", x_values=("0.1", "0.5"))
    (made,) = finish(sweep(model, photo("red"), how=way, options=quick()))
    corner = np.asarray(made.image)[-8 - 128 : -8, -8 - 128 : -8]
    shown = goal.image.resize((128, 128), Image.Resampling.NEAREST)
    assert np.array_equal(corner, np.asarray(shown))


def test_mistakes_in_a_sweep(model, quick) -> None:
    def refuse(match: str, *items: str, **how) -> None:
        with pytest.raises(OptionError, match=match):
            finish(sweep(model, *items, how=Sweep.parse(how, source="test"), options=quick()))

    refuse("no such field", "a ball", x="decoder.stebs", x_values=("1",))
    refuse("seed soon", "a ball", x="seed", x_values=("soon",))
    refuse("no 'paint' to sweep", "a ball", command="paint", x="seed", x_values=("1",))
    refuse("give one prompt", x="seed", x_values=("1",))
    refuse("x and y are both seed", "a", x="seed", x_values=("1",), y="seed", y_values=("1",))
    refuse("cannot be drawn", "a ball", x="size", x_values=("65",))


def test_embedding_needs_something(model) -> None:
    with pytest.raises(OptionError, match="nothing to embed"):
        finish(embed(model, []))
    assert GenerateOptions().seed == 0
    assert read_input(b"x").name == "image"
