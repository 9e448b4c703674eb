"""Options without effect: not listed by a command, refused as an axis; and what is listed acts."""

import re
from typing import Any

import pytest
import torch

from unclip.errors import OptionError
from unclip.manipulation.commands import COMMANDS
from unclip.manipulation.embeddings import embed
from unclip.manipulation.inputs import read_input
from unclip.manipulation.made import Making
from unclip.manipulation.options import Edit, Inpaint, Interpolate, Sweep
from unclip.manipulation.sweeps import sweep
from unclip.options import Embedding, GenerateOptions
from unclip.types import finish

OTHER: dict[str, Any] = {
    "seed": 5,
    "images": 2,
    "candidates": 1,
    "prior": {"steps": 1},
    "decoder": {"steps": 3},
}
HOW: dict[str, Any] = {
    "edit": Edit(to="a blue ball", frames=2),
    "inpaint": Inpaint(box=(5, 5, 30, 30), resamplings=1),
}
HOW["interpolate"] = Interpolate(frames=2)
HOW["inpaint with a prompt"] = HOW["inpaint"].model_copy(update={"prompt": "a ball"})
ITEMS = {"mix": ("a ball",), "interpolate": ("a ball",)}


@pytest.mark.parametrize(
    "case", ["vary", "interpolate", "mix", "edit", "reconstruct", "inpaint with a prompt"]
)
def test_a_command_lists_an_option_if_and_only_if_it_acts(
    case: str, model, photo, quick, pixels
) -> None:
    name = case.split()[0]
    items = (photo("red"), *ITEMS.get(name, ()))

    def draw(**values: Any) -> list:
        command = COMMANDS[name]
        how = {"how": HOW[case]} if case in HOW else {}
        asked = quick(**{"decoder": {"steps": 2}, "prior": {"steps": 2}} | values)
        made = finish(command.make(model, *items, **how, options=asked))
        return [pixels(picture).tolist() for picture in made]

    plain = draw()
    acts = {option for option, value in OTHER.items() if draw(**{option: value}) != plain}
    assert acts == COMMANDS[name].options.model_fields.keys() & OTHER.keys()


def test_embedding_lists_an_option_if_and_only_if_it_acts(model, photo, quick) -> None:
    def values(**changed: Any) -> torch.Tensor:
        items = [read_input(photo("red")), "a ball"]
        return finish(embed(model, items, options=quick(**changed))).values

    plain = values()
    acts = {
        option
        for option, value in (OTHER | {"size": 256, "tile": 64}).items()
        if not torch.equal(values(**{option: value}), plain)
    }
    assert acts == Embedding.model_fields.keys() - {"batch"}


PHOTO = "red.png"
IDLE = [
    (("generate", "a ball", "images=1,2"), "each place in the grid holds one picture"),
    (("generate", "a ball", "batch=1,2"), "each place in the grid holds one picture"),
    (("interpolate", PHOTO, "frames=2,3"), "each place in the grid holds one picture"),
    (("generate", "a ball", "tile=32,64"), "no upsampler works"),
    (("generate", "a ball", "upsampler.256.steps=1,2"), "this upsampler does not work"),
    (("vary", PHOTO, "prior.steps=1,2"), "vary does not use it"),
    (("vary", PHOTO, "candidates=1,2"), "vary does not use it"),
    (("upscale", PHOTO, "decoder.steps=1,2"), "upscale does not use it"),
    (("mix", PHOTO, "prior.steps=1,2"), "no prompt that the prior would be asked for"),
    (("inpaint", PHOTO, "candidates=1,2"), "no prompt that the prior would be asked for"),
]


@pytest.mark.parametrize(("words", "cause"), IDLE, ids=lambda value: " ".join(value[::2]))
def test_an_axis_without_effect_is_refused(words, cause, model, photo, quick) -> None:
    command, item, axis = words
    name, _, values = axis.partition("=")
    how = Sweep(command=command, x=name, x_values=tuple(values.split(",")))
    items = (photo("red"),) * (2 if command == "interpolate" else 1) if item == PHOTO else (item,)
    with pytest.raises(OptionError, match=rf"^{re.escape(name)} has no effect: .*{cause}"):
        next(sweep(model, *items, how=how, options=GenerateOptions(size=64)))


def begins(making: Making) -> None:
    assert next(making)
    making.close()


def test_an_axis_that_acts_in_one_cell_is_taken(model, quick) -> None:
    axes = {"x": "upsampler.256.steps", "x_values": ("1", "2")}
    sizes = {"y": "size", "y_values": ("64", "256")}
    begins(sweep(model, "a ball", how=Sweep(**axes, **sizes), options=quick()))


def test_a_prompt_may_be_the_other_axis(model, photo, quick) -> None:
    own: dict[str, Any] = {"command": "inpaint", "how": {"box": (5, 5, 30, 30)}}
    prompts = {"x": "prompt", "x_values": ("", "a ball")}
    way = Sweep(**own, **prompts, y="prior.steps", y_values=("1", "2"))
    begins(sweep(model, photo("red"), how=way, options=quick()))
    own["how"] |= {"prompt": "a ball", "image_weight": 1}
    way = Sweep(**own, x="prior.steps", x_values=("1", "2"))
    with pytest.raises(OptionError, match=r"prior\.steps has no effect"):
        next(sweep(model, photo("red"), how=way, options=quick()))


def test_an_option_for_all_cells_without_effect_is_refused(model, photo, quick) -> None:
    how = Sweep(command="vary", x="eta", x_values=("0", "1"))
    with pytest.raises(OptionError, match=r"^prior has no effect: vary does not use it"):
        next(sweep(model, photo("red"), how=how, options=quick(prior={"steps": 3})))


def test_an_axis_that_changed_nothing_is_told(model, quick) -> None:
    how = Sweep(x="decoder.eta", x_values=("0", "0.5"), y="seed", y_values=("1", "2"))
    asked = quick(decoder={"steps": 2, "sampler": "dpm++"})
    with pytest.warns(UserWarning, match=r"^decoder\.eta has no effect here"):
        finish(sweep(model, "a ball", how=how, options=asked))


@pytest.mark.parametrize("name", ["edit", "reconstruct", "vary"])
def test_what_a_code_leaves_no_choice_of_is_refused(name: str, model, photo, quick) -> None:
    command = COMMANDS[name]
    how = HOW.get(name) or command.how.parse({"strength": 0.5} if name == "vary" else {}, source="")
    for values, said in (
        ({"decoder": {"eta": 0.5}}, r"decoder\.eta does nothing here"),
        ({"width": 128}, "width does nothing here"),
    ):
        with pytest.raises(OptionError, match=said):
            next(command.make(model, photo("red"), how=how, options=quick(**values)))
