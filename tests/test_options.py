"""What a caller asks for, and what a model adds to it."""

import json
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample
from unclip.errors import OptionError
from unclip.options import Drawing, GenerateOptions
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.types import finish

DEFAULTS = GenerateOptions(
    size=256,
    candidates=3,
    prior=SamplingOptions(sampler="dpm++", steps=16, guidance=2.0),
    decoder=SamplingOptions(sampler="ddim", steps=20, guidance_interval=(0.1, 0.9)),
    upsampler={"256": SamplingOptions(sampler="ddim", steps=3, start=0.4)},
)


def test_unset_fields_take_the_models_defaults() -> None:
    assert GenerateOptions().over(DEFAULTS) == DEFAULTS
    asked = GenerateOptions(seed=7, decoder=SamplingOptions(guidance=4.0))
    assert asked.over(DEFAULTS) == DEFAULTS.updated({"seed": 7, "decoder": {"guidance": 4.0}})


def test_a_field_that_is_set_wins_even_with_the_value_it_has_anyway() -> None:
    asked = GenerateOptions(candidates=2, decoder=SamplingOptions(steps=250, sampler="ancestral"))
    over = asked.over(DEFAULTS)
    assert over.candidates == 2
    assert (over.decoder.steps, over.decoder.sampler) == (250, "ancestral")
    assert over.decoder.guidance_interval == (0.1, 0.9)


def test_options_of_few_stages_leave_the_others_to_the_model() -> None:
    few = Drawing(seed=7, decoder=SamplingOptions(guidance=4.0))
    assert few.asked() == GenerateOptions(seed=7, decoder=SamplingOptions(guidance=4.0))
    assert few.asked().model_fields_set == {"seed", "decoder"}
    assert few.asked().decoder.model_fields_set == {"guidance"}
    assert few.over(DEFAULTS) == few.asked().over(DEFAULTS)
    assert few.over(DEFAULTS).prior == DEFAULTS.prior


def test_upsamplers_are_merged_by_size() -> None:
    asked = GenerateOptions(
        upsampler={"256": SamplingOptions(steps=5), "1024": SamplingOptions(steps=9)}
    )
    merged = asked.over(DEFAULTS).upsampler
    assert merged["256"] == SamplingOptions(sampler="ddim", steps=5, start=0.4)
    assert merged["1024"] == SamplingOptions(steps=9)


def test_over_can_be_chained() -> None:
    """As in ``--like``: what is given, over the recipe, over the model."""
    recipe = GenerateOptions(seed=3, prior=SamplingOptions(steps=8))
    given_now = GenerateOptions(seed=4)
    complete = given_now.over(recipe.over(DEFAULTS))
    assert (complete.seed, complete.prior.steps, complete.size) == (4, 8, 256)


def test_a_combination_that_is_impossible_is_named() -> None:
    defaults = GenerateOptions(decoder=SamplingOptions(steps=3, spacing=(0, 10, 20)))
    asked = GenerateOptions(decoder=SamplingOptions(steps=4))
    with pytest.raises(OptionError, match="decoder: spacing lists 3 timesteps, steps is 4"):
        asked.over(defaults)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"images": 0}, "images"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"size": 0}, "size"),
        ({"candidates": 0}, "candidates"),
        ({"batch": 0}, "batch"),
        ({"tile": 8}, "tile"),
        ({"prior": {"steps": 0}}, "prior.steps"),
        ({"prior": {"sampler": "euler"}}, "prior.sampler"),
        ({"decoder": {"stpes": 3}}, "decoder.stpes: no such field"),
        ({"decoder": {"eta": -1}}, "decoder.eta"),
        ({"decoder": {"start": 0}}, "decoder.start"),
        ({"decoder": {"percentile": 2}}, "decoder.percentile"),
        ({"decoder": {"guidance_interval": [0.9, 0.1]}}, "decoder: guidance_interval"),
        ({"decoder": {"steps": 2, "skip": 2}}, "decoder: skip 2 leaves none"),
        ({"upsampler": {"256": {"guidance": "much"}}}, "upsampler.256.guidance"),
    ],
)
def test_errors_name_the_field(values: dict, field: str) -> None:
    with pytest.raises(OptionError) as caught:
        GenerateOptions.parse(values, source="options")
    assert str(caught.value).startswith(f"options: {field}")


SAMPLING = st.fixed_dictionaries(
    {},
    optional={
        "sampler": st.sampled_from(["ancestral", "ddim", "dpm++", "unipc"]),
        "steps": st.integers(5, 300),
        "guidance": st.floats(-5, 20),
        "guidance_interval": st.just((0.25, 0.5)),
        "eta": st.floats(0, 1),
        "clip": st.sampled_from(["none", "static", "dynamic"]),
        "skip": st.integers(0, 1),
    },
)


@given(
    asked=st.fixed_dictionaries(
        {},
        optional={
            "images": st.integers(1, 9),
            "seed": st.integers(0, 2**63 - 1),
            "size": st.none() | st.just(64),
            "prior": SAMPLING,
            "decoder": SAMPLING,
            "upsampler": st.dictionaries(st.sampled_from(["256", "1024"]), SAMPLING),
        },
    )
)
def test_what_is_asked_survives_json_and_is_never_lost(asked: dict) -> None:
    options = GenerateOptions.parse(asked, source="asked")
    text = options.model_dump_json(exclude_unset=True)
    again = GenerateOptions.parse(json.loads(text), source="json")
    assert again == options
    complete = again.over(preset("tiny").defaults)
    assert complete.over(GenerateOptions()) == complete

    def contained(part: object, whole: object) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(contained(value, whole[name]) for name, value in part.items())
        return part == whole

    assert contained(options.model_dump(exclude_unset=True), complete.model_dump())


@pytest.mark.parametrize(
    ("asked", "suits", "largest"),
    [
        (None, "static", 1.0),
        (None, "none", 3.0),
        ("none", "static", 3.0),
        ("static", "none", 1.0),
    ],
)
def test_clipping_is_the_stages_unless_asked_for(
    asked: Literal["none", "static"] | None, suits: Literal["none", "static"], largest: float
) -> None:
    """A network sure that x0 is 3 everywhere, in a space where that may be too much, or not."""
    process = Process(DiffusionConfig(target="x0"))
    options = SamplingOptions(sampler="ddim", steps=2, clip=asked)
    walk = sample(
        process,
        lambda x_t, t: torch.full_like(x_t, 3.0),
        torch.zeros(1, 4),
        options,
        Randomness([0]),
        stage="test",
        clip=suits,
    )
    torch.testing.assert_close(finish(walk), torch.full((1, 4), largest))
