"""From prompts to pictures with a tiny model of random weights: order, seeds, steps, recipes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unclip.checkpoint import load_pipeline
from unclip.errors import ImageError, OptionError, PromptError
from unclip.images import read_recipe
from unclip.options import GenerateOptions
from unclip.pipeline import Generated, Slot, UnCLIP
from unclip.randomness import Randomness
from unclip.runtime import Runtime
from unclip.types import Step, finish

FLOAT32 = Runtime(torch.device("cpu"), torch.float32, channels_last=False, compile=False)
SMALL = GenerateOptions(size=64)


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> UnCLIP:
    return load_pipeline(tiny_model, FLOAT32)


def options(**values: Any) -> GenerateOptions:
    return GenerateOptions.parse({"size": 64} | values, source="test")


def pixels(generated: Generated) -> np.ndarray:
    return np.asarray(generated.image).astype(int)


def difference(one: Generated, other: Generated) -> int:
    """Largest difference of a pixel, of 255."""
    return int(np.abs(pixels(one) - pixels(other)).max())


def by_seed(drawn: list[Generated]) -> dict[int, Generated]:
    return {generated.seed: generated for generated in drawn}


def test_a_prompt_becomes_a_picture(pipeline: UnCLIP) -> None:
    (generated,) = pipeline.generate("a red apple")
    assert generated.image.size == (1024, 1024)
    assert generated.image.mode == "RGB"
    assert (generated.prompt, generated.seed) == ("a red apple", 0)
    assert -1 <= generated.score <= 1
    assert pixels(generated).std() > 1, "not one flat colour"


def test_the_score_is_the_cosine_of_picture_and_prompt(pipeline: UnCLIP) -> None:
    walk = pipeline.stream("a red apple", SMALL)
    steps = []
    while True:
        try:
            steps.append(next(walk))
        except StopIteration as stop:
            (generated,) = stop.value
            break
    z_i = pipeline.encode_image(steps[-1].x0.clamp(-1, 1))
    z_t = pipeline.encode_text(["a red apple"]).embedding
    assert generated.score == pytest.approx(float((z_i * z_t).sum()), abs=1e-4)


def test_every_stage_tells_its_steps(pipeline: UnCLIP) -> None:
    asked = options(size=None, images=3, batch=2, candidates=3, decoder={"steps": 5})
    steps = list(pipeline.stream(["a cat"], asked))
    totals = {"prior": 4, "decoder": 5, "upsampler 256": 2, "upsampler 1024": 2}
    once = [(stage, index, total) for stage, total in totals.items() for index in range(total)]
    assert [(step.stage, step.index, step.total) for step in steps] == 2 * once

    def rows(batch: list[Step]) -> dict[str, tuple[int, ...]]:
        return {step.stage: tuple(step.x0.shape) for step in batch}

    assert rows(steps[: len(once)]) == {
        "prior": (6, 32),
        "decoder": (2, 3, 64, 64),
        "upsampler 256": (2, 3, 256, 256),
        "upsampler 1024": (2, 3, 1024, 1024),
    }
    assert rows(steps[len(once) :])["decoder"] == (1, 3, 64, 64)


def test_closing_cancels(pipeline: UnCLIP) -> None:
    with pipeline.decoder.use() as decoder:
        network = decoder.network
    calls = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    walk = pipeline.stream("a cat", SMALL)
    for step in walk:
        if (step.stage, step.index) == ("decoder", 1):
            break
    seen = len(calls)
    assert seen == 2
    walk.close()
    assert list(walk) == []
    assert len(calls) == seen
    hook.remove()


def test_an_image_does_not_depend_on_its_batch(pipeline: UnCLIP) -> None:
    """Rounding to 8 bits may turn the last bit of a float32 into one level, no more."""
    together = by_seed(pipeline.generate("a cat", options(images=4, batch=4, seed=10)))
    for batch in (1, 3):
        apart = by_seed(pipeline.generate("a cat", options(images=4, batch=batch, seed=10)))
        assert together.keys() == apart.keys() == {10, 11, 12, 13}
        assert all(difference(together[seed], apart[seed]) <= 1 for seed in together)
    (alone,) = pipeline.generate("a cat", options(seed=12))
    assert difference(together[12], alone) <= 1
    assert difference(together[10], together[11]) > 8, "other seeds give other pictures"


def test_an_image_does_not_depend_on_the_order_of_prompts(pipeline: UnCLIP) -> None:
    first = pipeline.generate(["a cat", "two dogs", "three"], options(batch=2))
    second = pipeline.generate(["three", "a cat", "two dogs"], options(batch=3))
    assert [generated.prompt for generated in first] == ["a cat", "two dogs", "three"]
    assert [generated.prompt for generated in second] == ["three", "a cat", "two dogs"]
    for one, other in zip(first, [*second[1:], second[0]], strict=True):
        assert difference(one, other) <= 1


def test_the_same_call_draws_the_same_bits(pipeline: UnCLIP) -> None:
    one, other = (pipeline.generate("a cat", options(images=2)) for _ in range(2))
    assert [(g.seed, g.score) for g in one] == [(g.seed, g.score) for g in other]
    assert all(difference(a, b) == 0 for a, b in zip(one, other, strict=True))


def test_the_best_of_each_prompt_comes_first(pipeline: UnCLIP) -> None:
    drawn = pipeline.generate(["a cat", "two dogs"], options(images=5, batch=3))
    assert [generated.prompt for generated in drawn] == ["a cat"] * 5 + ["two dogs"] * 5
    for group in (drawn[:5], drawn[5:]):
        scores = [generated.score for generated in group]
        assert scores == sorted(scores, reverse=True)
        assert {generated.seed for generated in group} == set(range(5))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("", "the prompt is empty"),
        (" \n", "the prompt is empty"),
        (["a cat", ""], "prompt 2 is empty"),
        ([], "no prompt given"),
        ("half a \ud83d smile", "not valid Unicode"),
    ],
)
def test_prompts_that_say_nothing(prompts: str | list[str], message: str, pipeline: UnCLIP) -> None:
    with pytest.raises(PromptError, match=message):
        pipeline.generate(prompts)


def test_what_the_model_cannot_do_is_said_before_anything_is_drawn(pipeline: UnCLIP) -> None:
    for asked, message in (
        (options(size=128), "size 128 cannot be drawn by this model; choose from 64, 256, 1024"),
        (options(upsampler={"512": {"steps": 3}}), "upsampler.512: this model has upsamplers to"),
    ):
        with pytest.raises(OptionError) as caught:
            next(pipeline.stream("a cat", asked))
        assert message in str(caught.value)


def test_upsamplers_of_which_a_model_says_nothing_walk_as_the_papers(pipeline: UnCLIP) -> None:
    said = GenerateOptions.parse({"upsampler": {"1024": {"steps": 3}}}, source="test")
    model = UnCLIP(
        pipeline.clip,
        pipeline.prior,
        pipeline.decoder,
        pipeline.upsamplers,
        size=64,
        defaults=said,
    )
    found = model.complete(GenerateOptions()).upsampler
    assert (found["256"].sampler, found["256"].steps) == ("ddim", 27)
    assert found["1024"] == said.upsampler["1024"]
    asked = options(size=256, upsampler={"256": {"steps": 1, "start": 0.1}})
    way = model.complete(asked).upsampler["256"]
    assert (way.sampler, way.steps) == ("ddim", 1), "what is unset is the program's"
    images = finish(
        model.upsample(torch.zeros(1, 3, 64, 64), model.complete(asked), Randomness([0]))
    )
    assert images.shape == (1, 3, 256, 256)


def test_options_that_are_not_complete_are_told_how_to_be(pipeline: UnCLIP) -> None:
    z_i = torch.nn.functional.normalize(torch.ones(1, 32), dim=-1)
    few = options(size=256, decoder={"steps": 1})
    with pytest.raises(OptionError, match=r"lack upsampler\.256: give those that `complete`"):
        next(pipeline.decode(z_i, None, few, Randomness([0])))


def test_small_pictures_need_no_upsampler(tiny_model: Path) -> None:
    pipeline = load_pipeline(tiny_model, FLOAT32)
    (generated,) = pipeline.generate("a cat", SMALL)
    assert generated.image.size == (64, 64)
    assert not any(slot.loaded for slot in pipeline.upsamplers.values())


def test_a_recipe_makes_the_image_again(pipeline: UnCLIP, tmp_path: Path) -> None:
    asked = options(images=2, batch=1, seed=5, decoder={"guidance": 3.0}, prior={"eta": 0.5})
    drawn = pipeline.generate("a cat: happy", asked)
    path = drawn[1].save(tmp_path / "cat.png")
    recipe = read_recipe(path)
    assert recipe == json.loads(json.dumps(drawn[1].recipe))
    assert recipe["prompt"] == "a cat: happy"
    assert recipe["command"] == "generate"
    assert (recipe["model"], recipe["fingerprint"]) == ("tiny", pipeline.fingerprint)
    assert recipe["software"].startswith("unclip ")
    assert recipe["options"]["seed"] == drawn[1].seed
    assert not {"images", "batch"} & recipe["options"].keys()
    again = GenerateOptions.parse(recipe["options"], source="recipe")
    assert again.decoder.guidance == 3.0
    assert again.decoder.sampler == "ddim", "the model's defaults are written out"
    (redrawn,) = pipeline.generate(recipe["prompt"], again)
    assert difference(redrawn, drawn[1]) == 0
    with pytest.raises(ImageError, match="exists"):
        drawn[0].save(path)


def test_embedding_decoding_and_upsampling_can_be_had_apart(pipeline: UnCLIP) -> None:
    """What manipulations of images are made of."""
    complete = SMALL.over(pipeline.defaults)
    text = pipeline.encode_text(["a cat", "a dog"])
    z_i = finish(pipeline.embed(text, complete, Randomness([0, 1])))
    torch.testing.assert_close(z_i.norm(dim=-1), torch.ones(2))
    images = finish(pipeline.decode(z_i, None, complete, Randomness([0, 1])))
    assert images.shape == (2, 3, 64, 64)
    wide = finish(pipeline.upsample(images, complete.updated({"size": 256}), Randomness([0, 1])))
    assert wide.shape == (2, 3, 256, 256)
    torch.testing.assert_close(pipeline.encode_image(wide).norm(dim=-1), torch.ones(2))


def test_a_slot_lets_go_when_the_last_user_is_done() -> None:
    slot = Slot(object, keep=False)
    with slot.use() as outer:
        with slot.use() as inner:
            assert inner is outer
        assert slot.loaded
    assert not slot.loaded


def test_a_slot_holds_what_it_is_given() -> None:
    slot = Slot.holding([1, 2])
    with slot.use() as content:
        assert content == [1, 2]
    assert slot.loaded
