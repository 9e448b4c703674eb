"""Which CLIP a stage was trained on: one fingerprint however stored, another after training."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from unclip.checkpoint import load_pipeline, load_stage, read_config, save_stage
from unclip.clip.clip import Clip
from unclip.errors import CheckpointError
from unclip.identity import ClipIdentity, identify
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.runtime import Runtime, choose_runtime
from unclip.types import Batch

FLOAT32 = Runtime(torch.device("cpu"), torch.float32, channels_last=False, compile=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_storing_does_not_change_it(dtype: torch.dtype, tiny_stages: dict[str, Any]) -> None:
    weights = tiny_stages["clip"].state_dict()
    stored = {key: value.to(dtype) for key, value in reversed(weights.items())}
    restored = {key: value.float() for key, value in stored.items()}
    expected = identify(weights.items())
    assert expected.image
    assert expected.text
    assert identify(stored.items()) == identify(restored.items()) == expected


def test_weights_too_small_for_float16_keep_their_sign() -> None:
    weights = {"network.image.exit": torch.tensor([[1e-12, -1e-12, 1.0, -0.5]])}
    rounded = {key: value.half() for key, value in weights.items()}
    assert (rounded["network.image.exit"] == 0).sum() == 2
    assert identify(rounded.items()) == identify(weights.items())


def test_neither_placing_nor_memory_format_changes_it(tiny_model: Path) -> None:
    stored = read_config(tiny_model / "clip")[1].identity
    placed = load_stage(tiny_model / "clip", choose_runtime("cpu", "bf16"))
    assert placed.identity() == stored
    resnet = torch.randn(4, 3, 2, 2)
    strided = resnet.to(memory_format=torch.channels_last)
    key = "network.image.stem"
    assert identify([(key, resnet)]) == identify([(key, strided)])


def test_a_step_of_training_changes_both_towers() -> None:
    torch.manual_seed(0)
    clip = Clip.from_config(preset("tiny").clip)
    before = clip.identity()
    batch = Batch(("a", "b"), torch.rand(2, 3, 32, 32), ("a red ball", "a box"))
    clip(batch, Randomness([0, 1]))["loss"].backward()
    with torch.no_grad():
        for parameter in clip.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad.sign()
    after = clip.identity()
    assert before.image != after.image
    assert before.text != after.text


def test_towers_are_told_apart_and_other_tensors_do_not_count() -> None:
    one, two = torch.randn(3, 4), torch.randn(3, 4)
    both = identify([("network.image.a", one), ("network.text.a", two)])
    assert identify([("network.image.a", one)]) == both.model_copy(update={"text": None})
    noise = [("network.logit_scale", torch.tensor(1.0)), ("network.image.gain", one[0])]
    count = ("network.image.batches", torch.ones(2, 2, dtype=torch.int64))
    assert identify([*noise, count, ("network.text.a", two), ("network.image.a", one)]) == both
    assert identify([("network.image.b", one)]).image != both.image, "another place"
    assert identify([("network.image.a", one.reshape(4, 3))]).image != both.image


def test_what_is_a_conflict() -> None:
    a, b = ClipIdentity(image="a", text="t"), ClipIdentity(image="b", text="t")
    named, other = ClipIdentity(name="L/14"), ClipIdentity(name="bigG")
    assert a.conflict(b) == "image tower a, b"
    assert a.conflict(ClipIdentity(text="u", name="L/14")) == "text tower t, u of L/14"
    assert named.conflict(other) == "L/14, bigG"
    raw = a.model_copy(update={"normalised": False})
    assert a.conflict(raw) == "of unit length, not normalised"
    for agreeing in (
        a,
        None,
        named,
        ClipIdentity(),
        ClipIdentity(text="t"),
        ClipIdentity(image="a"),
    ):
        assert a.conflict(agreeing) is None
    # What is measured outweighs what it is called.
    assert a.model_copy(update={"name": "x"}).conflict(a.model_copy(update={"name": "y"})) is None


def test_a_name_goes_with_the_weights_it_was_given_for(
    tiny_stages: dict[str, Any], tmp_path: Path
) -> None:
    clip = tiny_stages["clip"]
    weights = clip.state_dict()
    config = clip.config.model_copy(update={"identity": ClipIdentity(name="L/14")})
    named = config.model_copy(update={"identity": config.identified(weights.items())})
    assert named.identity.name == "L/14"
    assert named.identified(weights.items()) == named.identity
    turned = {key: -value for key, value in weights.items()}
    assert named.identified(turned.items()).name == ""
    save_stage(clip, tmp_path / "clip", weights=turned)
    assert read_config(tmp_path / "clip")[1].identity == identify(turned.items())


# --- models ----------------------------------------------------------------------------------


def write_record(folder: Path, field: str, identity: ClipIdentity | None) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["config"][field] = identity and identity.model_dump()
    (folder / "config.json").write_text(json.dumps(values))


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_models_without_records_open_as_before(model: Path) -> None:
    write_record(model / "clip", "identity", None)
    load_pipeline(model, FLOAT32)
    write_record(model / "prior", "clip", ClipIdentity(image="a", text="b"))
    load_pipeline(model, FLOAT32)


@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_a_retrained_clip_is_noticed(model: Path, stage: str, tiny_stages: dict[str, Any]) -> None:
    old = tiny_stages["clip"].identity()
    write_record(model / stage, "clip", old)
    load_pipeline(model, FLOAT32)
    torch.manual_seed(5)
    retrained = Clip(tiny_stages["clip"].config, tiny_stages["clip"].tokenizer)
    save_stage(retrained, model / "clip")
    new = retrained.identity()
    with pytest.raises(
        CheckpointError,
        match=rf"the {stage} was trained on another CLIP .*{old.image}, {new.image}.*; train the",
    ):
        load_pipeline(model, FLOAT32)


def test_prior_and_decoder_are_compared_where_clip_knows_no_image(model: Path) -> None:
    write_record(model / "clip", "identity", ClipIdentity(text="t"))
    write_record(model / "prior", "clip", ClipIdentity(image="a", text="t"))
    write_record(model / "decoder", "clip", ClipIdentity(image="b"))
    with pytest.raises(CheckpointError, match=r"different CLIPs \(image tower a, b\)"):
        load_pipeline(model, FLOAT32)
    write_record(model / "decoder", "clip", ClipIdentity(image="a"))
    load_pipeline(model, FLOAT32)
