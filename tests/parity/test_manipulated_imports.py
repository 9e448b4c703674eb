"""Every manipulation on small random Karlo and Kandinsky models, imported as published."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kandinsky_small
import karlo_small
import pytest
import torch
from PIL import Image, ImageDraw

import unclip
from unclip.errors import CheckpointError, OptionError
from unclip.manipulation import (
    Edit,
    Inpaint,
    Interpolate,
    Reconstruct,
    Vary,
    decode,
    edit,
    embed,
    inpaint,
    interpolate,
    mix,
    reconstruct,
    upscale,
    vary,
)
from unclip.manipulation.inputs import read_input
from unclip.manipulation.made import Made
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.runtime import choose_runtime
from unclip.types import finish
from unclip.weights.convert import import_source

FEW = GenerateOptions.parse({"prior": {"steps": 2}, "decoder": {"steps": 3}}, source="test")


def picture(colour: str) -> Image.Image:
    image = Image.new("RGB", (70, 50), "white")
    ImageDraw.Draw(image).ellipse((10, 10, 50, 40), fill=colour)
    return image


RED, BLUE = picture("red"), picture("blue")


@pytest.fixture(scope="module")
def karlo(tmp_path_factory: pytest.TempPathFactory) -> UnCLIP:
    folder = tmp_path_factory.mktemp("karlo")
    built = karlo_small.pipeline(variation=True)
    import_source(karlo_small.save(built, folder / "published"), folder / "model")
    return unclip.load(folder / "model", choose_runtime("cpu", "fp32"))


@pytest.fixture(scope="module")
def kandinsky(tmp_path_factory: pytest.TempPathFactory) -> UnCLIP:
    folder = tmp_path_factory.mktemp("kandinsky")
    built = kandinsky_small.parts(torch.float32)
    prior, decoder = kandinsky_small.save(folder, built)
    import_source(f"{prior}+{decoder}", folder / "model")
    return unclip.load(folder / "model", choose_runtime("cpu", "fp32"))


Call = Callable[[UnCLIP], Any]

BY_PICTURES: dict[str, Call] = {
    "vary": lambda model: vary(model, RED, options=FEW),
    "vary with eta": lambda model: vary(model, RED, how=Vary(eta=0.5), options=FEW),
    "interpolate": lambda model: interpolate(
        model, RED, BLUE, how=Interpolate(frames=3, noise="slerp"), options=FEW
    ),
    "mix": lambda model: mix(model, RED, BLUE, options=FEW),
    "edit": lambda model: edit(model, RED, how=Edit(to="a fox", frames=2), options=FEW),
    "reconstruct": lambda model: reconstruct(model, RED, how=Reconstruct(exact=True), options=FEW),
}


def check(made: list[Made], model: UnCLIP) -> None:
    for one in made:
        assert one.image.size == (model.sizes[-1],) * 2
        assert one.recipe["fingerprint"] == model.fingerprint


@pytest.mark.parametrize("family", ["karlo", "kandinsky"])
@pytest.mark.parametrize("name", BY_PICTURES)
def test_pictures_are_enough(name: str, family: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(family)
    check(finish(BY_PICTURES[name](model)), model)


def test_karlo_keeps_what_is_known(karlo: UnCLIP) -> None:
    (made,) = finish(inpaint(karlo, RED, how=Inpaint(box=(5, 5, 20, 20)), options=FEW))
    assert max(made.image.size) == karlo.sizes[-1]
    (large,) = finish(upscale(karlo, Image.new("RGB", (20, 16), "red"), options=FEW))
    assert large.image.width > 20


def test_kandinsky_has_no_pixels_to_keep(kandinsky: UnCLIP) -> None:
    with pytest.raises(OptionError, match="draws latents"):
        finish(inpaint(kandinsky, RED, how=Inpaint(box=(5, 5, 20, 20)), options=FEW))
    with pytest.raises(OptionError, match="no upsampler"):
        finish(upscale(kandinsky, RED, options=FEW))


def test_prompts_need_a_prior(karlo: UnCLIP, kandinsky: UnCLIP) -> None:
    check(finish(mix(kandinsky, RED, "a fox", options=FEW)), kandinsky)
    with pytest.raises(CheckpointError, match="no prior"):
        finish(mix(karlo, RED, "a fox", options=FEW))


@pytest.mark.parametrize("family", ["karlo", "kandinsky"])
def test_embeddings_keep_their_length(
    family: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(family)
    rows = finish(embed(model, [read_input(RED), read_input(BLUE)], options=FEW))
    assert float((rows.values.norm(dim=1) - 1).abs().min()) > 1e-3, "not of unit length"
    rows.save(tmp_path / "rows.safetensors")
    made = finish(decode(model, tmp_path / "rows.safetensors", options=FEW))
    assert len(made) == 2
