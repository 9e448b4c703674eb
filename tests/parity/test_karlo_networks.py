"""Karlo's networks, imported from diffusers' folders, against diffusers' own modules."""

from pathlib import Path
from typing import Any

import karlo_ours
import karlo_small
import pytest
import torch
from karlo_ours import apart, text_features
from karlo_small import CONTEXT, ENLARGED, SIZE, D
from torch import Tensor

from unclip.types import TextFeatures
from unclip.weights import karlo_diffusers

LENGTHS = [2, 30, 77]
BARS = [(torch.float64, 1e-6), (torch.float32, 2e-5)]
TIMES = [0, 500, 999]
bars = pytest.mark.parametrize(("dtype", "bar"), BARS, ids=str)
times = pytest.mark.parametrize("t", TIMES)


@pytest.fixture(scope="module")
def theirs() -> Any:
    return karlo_small.pipeline()


@pytest.fixture(scope="module")
def ours(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = karlo_small.save(theirs, tmp_path_factory.mktemp("karlo"))
    return karlo_ours.stages(karlo_ours.planned(folder, karlo_diffusers.FAMILY))


def draw(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def conditions(dtype: torch.dtype) -> tuple[Tensor, TextFeatures]:
    """z_i and text features of captions of 2, 30 and 77 tokens, not of unit length."""
    count = len(LENGTHS)
    mask = torch.arange(CONTEXT) < torch.tensor(LENGTHS)[:, None]
    embedding = draw(count, D, seed=1, dtype=dtype) * 3
    states = draw(count, CONTEXT, D, seed=2, dtype=dtype)
    return draw(count, D, seed=3, dtype=dtype), text_features(embedding, states, mask)


def outputs(stage: str, theirs: Any, ours: Any, t: int, dtype: torch.dtype) -> tuple:
    """What both say at ``t``: ours, then theirs."""
    z, text = conditions(dtype)
    count, none = len(z), torch.zeros(len(z), dtype=torch.bool)
    at = torch.full((count,), t)
    with torch.no_grad():
        if stage == "prior":
            theirs.prior.to(dtype)
            x = draw(count, D, seed=4, dtype=dtype)
            expected = theirs.prior(x, t, text.embedding, text.states, text.mask)
            network = ours["prior"].to(dtype).network
            return network(x, at, text, none), expected.predicted_image_embedding
        if stage == "decoder":
            theirs.decoder.to(dtype), theirs.text_proj.to(dtype)
            x = draw(count, 3, SIZE, SIZE, seed=5, dtype=dtype)
            context, labels = theirs.text_proj(
                image_embeddings=z,
                prompt_embeds=text.embedding,
                text_encoder_hidden_states=text.states,
                do_classifier_free_guidance=False,
            )
            mask = torch.nn.functional.pad(text.mask, (4, 0), value=True)
            expected = theirs.decoder(x, t, context, class_labels=labels, attention_mask=mask)
            network = ours["decoder"].to(dtype).network
            return network(x, at, network.condition(z, text, none, none)), expected.sample
        x = draw(count, 6, ENLARGED, ENLARGED, seed=6, dtype=dtype)
        expected = getattr(theirs, f"super_res_{stage}").to(dtype)(x, t).sample
        return getattr(ours["upsampler-32"].to(dtype).network, stage)(x, at), expected


@bars
@times
@pytest.mark.parametrize("stage", ["prior", "decoder", "first", "last"])
def test_networks(theirs, ours, record_property, stage: str, t: int, dtype, bar: float) -> None:
    mine, expected = outputs(stage, theirs, ours, t, dtype)
    assert mine.dtype == dtype
    record_property(f"{stage} {t} {dtype}", apart(mine, expected))
    assert apart(mine, expected) <= bar


@bars
def test_a_dropped_condition_is_their_unconditional_half(theirs, ours, dtype, bar: float) -> None:
    """A learned vector for z_i, and CLIP's real encoding of the empty prompt, not a null."""
    (z, text), count = conditions(dtype), len(LENGTHS)
    theirs.decoder.to(dtype), theirs.text_proj.to(dtype), theirs.text_encoder.to(dtype)
    x, t = draw(count, 3, SIZE, SIZE, seed=5, dtype=dtype), 500
    with torch.no_grad():
        embedding, states, mask = theirs._encode_prompt([""] * count, "cpu", 1, False)
        context, labels = theirs.text_proj(
            image_embeddings=z,
            prompt_embeds=torch.cat([embedding, embedding]),
            text_encoder_hidden_states=torch.cat([states, states]),
            do_classifier_free_guidance=True,
        )
        mask = torch.nn.functional.pad(mask, (4, 0), value=True)
        expected = theirs.decoder(
            x, t, context[:count], class_labels=labels[:count], attention_mask=mask
        ).sample
        network, every = ours["decoder"].to(dtype).network, torch.ones(count, dtype=torch.bool)
        for given in (text, None):
            mine = network(x, torch.full((count,), t), network.condition(z, given, every, every))
            assert apart(mine, expected) <= max(bar, 2e-6)  # the null is stored in float32


@pytest.mark.parametrize("stage", ["prior", "decoder", "first", "last"])
def test_bfloat16_errs_no_more_than_theirs(theirs, ours, record_property, stage: str) -> None:
    """Root mean square over three timesteps, against float64, of ours and of theirs."""
    exact = [outputs(stage, theirs, ours, t, torch.float64)[1] for t in TIMES]
    rough = [outputs(stage, theirs, ours, t, torch.bfloat16) for t in TIMES]
    # Both have been rounded to bfloat16 by now, and stay so.
    error = [
        sum(
            float((pair[side].double() - best).square().mean())
            for pair, best in zip(rough, exact, strict=True)
        )
        ** 0.5
        for side in (0, 1)
    ]
    record_property(f"{stage} bfloat16 ratio", error[0] / error[1])
    assert error[0] <= 1.2 * error[1]


def test_a_feature_map_of_as_many_pixels_as_tokens_is_masked_too(ours) -> None:
    """81 pixels beside 4 + 77 tokens: diffusers then takes the mask of tokens for the whole."""
    z, text = conditions(torch.float32)
    network, none = ours["decoder"].float().network, torch.zeros(3, dtype=torch.bool)
    x, t = draw(3, 3, 18, 18, seed=5, dtype=torch.float32), torch.full((3,), 500)
    padding = ~text.mask[..., None]
    other = text_features(text.embedding, text.states + 5 * padding, text.mask)
    with torch.no_grad():
        one, two = (network(x, t, network.condition(z, f, none, none)) for f in (text, other))
        torch.testing.assert_close(one, two, rtol=0, atol=1e-5)


def test_extra_tokens_are_channel_major(theirs, ours) -> None:
    """Both orders have the same shapes, so that nothing else would notice."""
    z, _ = conditions(torch.float32)
    with torch.no_grad():
        guide = ours["decoder"].float().network.image(z, torch.zeros(3, dtype=torch.bool))
        flat = theirs.text_proj.float().clip_extra_context_tokens_proj(z)
    torch.testing.assert_close(guide.tokens[:, 1], flat[:, 1::4])


def test_both_references_are_in_the_configs(theirs, tmp_path: Path) -> None:
    folder = karlo_small.save(theirs.to(torch.float32), tmp_path / "karlo")
    plans = {
        r: karlo_ours.planned(folder, karlo_diffusers.FAMILY, r) for r in ("authors", "diffusers")
    }
    fits = {r: plan.parts[0].config.fit for r, plan in plans.items()}
    assert fits == {"authors": "squash", "diffusers": "crop"}
    bounds = {r: plan.defaults.prior.bound for r, plan in plans.items()}
    assert bounds == {"authors": 10, "diffusers": 5}
    for name, tables, stride in (
        ("authors", "float64", "accumulated"),
        ("diffusers", "float32", "multiplied"),
    ):
        for part in plans[name].parts[1:]:
            assert part.config.diffusion.tables == tables
            assert part.config.diffusion.stride == stride
        assert plans[name].card.reference == name
        assert plans[name].card.licence == "CreativeML OpenRAIL-M"
    steps = {r: (p.defaults.prior.steps, p.defaults.decoder.steps) for r, p in plans.items()}
    assert steps == {"authors": (25, 50), "diffusers": (25, 25)}
    assert [part.name for part in plans["authors"].parts] == [
        "clip",
        "prior",
        "decoder",
        "upsampler-32",
    ]
