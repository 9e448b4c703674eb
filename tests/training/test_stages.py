"""The four real stages, at their tiniest, in the trainer."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from unclip.checkpoint import load_stage
from unclip.clip.clip import Clip
from unclip.decoder.decoder import Decoder
from unclip.errors import CheckpointError, TrainingError
from unclip.presets import preset
from unclip.prior.autoregressive import AutoregressivePrior
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.randomness import Randomness
from unclip.training.conditioner import FrozenClip
from unclip.training.config import TrainingConfig
from unclip.training.optimizer import decayed_names
from unclip.training.trainer import train
from unclip.types import Batch
from unclip.upsampler.upsampler import Upsampler

STAGES = ("clip", "prior", "autoregressive", "decoder", "upsampler")
TINY = preset("tiny")


def build(name):
    torch.manual_seed(3)
    return {
        "clip": lambda: Clip.from_config(TINY.clip),
        "prior": lambda: DiffusionPrior(TINY.prior(TINY.clip)),
        "autoregressive": autoregressive,
        "decoder": lambda: Decoder(TINY.decoder(TINY.clip)),
        "upsampler": lambda: Upsampler(TINY.upsamplers[256]),
    }[name]()


def autoregressive():
    prior = AutoregressivePrior(TINY.autoregressive(TINY.clip))
    loader = Squares().batches(0)
    conditioner = FrozenClip(tiny_clip(), prior.needs)
    prior.codec.fit([conditioner(next(loader)) for _ in range(4)])
    return prior


@cache
def tiny_clip():
    return build("clip").eval()


class Squares:
    """Images of one colour, with its name."""

    def batches(self, start):
        colours = {
            "red": (1, -1, -1),
            "green": (-1, 1, -1),
            "blue": (-1, -1, 1),
            "white": (1, 1, 1),
        }
        names = list(colours)
        while True:
            chosen = [names[(start + i) % 4] for i in range(8)]
            images = torch.tensor([colours[name] for name in chosen]).float()
            yield Batch(
                keys=tuple(f"{start}/{name}" for name in chosen),
                images=images[:, :, None, None].expand(-1, -1, 64, 64).contiguous(),
                captions=tuple(chosen),
            )
            start += 1


def run_training(run, name, max_steps=None, **changes):
    stage = build(name)
    values = {"steps": 6, "batch": 8, "lr": 1e-3, "warmup": 0, "log_every": 1, "save_every": 3}
    conditioner = None if name == "clip" else FrozenClip(tiny_clip(), stage.needs)
    config = TrainingConfig(**(values | changes))
    report = train(
        stage, Squares(), config, run, conditioner=conditioner, max_steps=max_steps, device="cpu"
    )
    return stage, report


@pytest.mark.parametrize("name", STAGES)
def test_resumes_bit_for_bit_and_exports_a_stage(tmp_path, name):
    straight, report = run_training(tmp_path / "straight", name, precision="bf16")
    run_training(tmp_path / "parts", name, max_steps=4, precision="bf16")
    resumed, _ = run_training(tmp_path / "parts", name, precision="bf16")
    for key, value in straight.state_dict().items():
        # NaN is how a stage marks statistics that were not measured yet.
        torch.testing.assert_close(
            resumed.state_dict()[key], value, rtol=0, atol=0, equal_nan=True, msg=key
        )
    assert all(parameter.isfinite().all() for parameter in straight.parameters())
    exported = load_stage(report.folder)
    assert type(exported) is type(straight)
    told = {"identity": exported.identity()} if name == "clip" else {}
    assert exported.config == straight.config.model_copy(update=told)
    assert name in ("clip", "upsampler") or exported.config.clip == tiny_clip().identity()


@pytest.mark.parametrize("name", STAGES)
def test_checkpointed_gradients_are_the_same(tmp_path, name):
    plain, _ = run_training(tmp_path / "plain", name, precision="fp32", steps=2)
    saving, _ = run_training(
        tmp_path / "saving", name, precision="fp32", steps=2, gradient_checkpointing=True
    )
    for mine, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STAGES)
def test_every_parameter_gets_a_gradient(tmp_path, name):
    """So that several processes need no search for unused ones."""
    stage, _ = run_training(tmp_path, name, steps=1)
    moments = load_file(tmp_path / "state" / "step-00000001" / "optimizer.safetensors")
    stepped = {key.split("/", 1)[1] for key in moments}
    assert stepped == {key for key, value in stage.named_parameters() if value.requires_grad}


def test_weights_that_do_not_decay_are_embeddings_and_positions():
    spared = {
        f"{name}: {key}"
        for name in STAGES
        for stage in [build(name)]
        for key, value in stage.named_parameters()
        if value.ndim >= 2 and key not in decayed_names(stage)
    }
    assert spared == {
        "clip: network.image.positions",
        "clip: network.text.positions",
        "clip: network.text.tokens.weight",
        "prior: network.positions",
        "prior: network.unconditional.states",
        "autoregressive: network.positions",
        "autoregressive: network.tokens.weight",
        "autoregressive: network.unconditional.states",
        "decoder: network.text.encoder.positions",
        "decoder: network.text.encoder.padding",
        "decoder: network.text.encoder.tokens.weight",
    }


def test_frozen_clip_computes_only_what_is_needed():
    batch = next(Squares().batches(0))
    assert FrozenClip(tiny_clip(), frozenset({"images"}))(batch) is not None
    text_only = FrozenClip(tiny_clip(), frozenset({"text"}))(batch)
    assert text_only.image_embedding is None
    both = FrozenClip(tiny_clip(), Decoder.needs)(batch)
    torch.testing.assert_close(both.image_embedding, tiny_clip().encode_image(batch.images))
    torch.testing.assert_close(both.text.embedding, text_only.text.embedding)
    cached = Batch(keys=batch.keys, image_embedding=both.image_embedding, text=both.text)
    assert FrozenClip(tiny_clip(), Decoder.needs)(cached).image_embedding is both.image_embedding
    assert not any(parameter.requires_grad for parameter in tiny_clip().parameters())


@pytest.mark.parametrize("name", ["prior", "autoregressive", "decoder"])
def test_no_stage_sees_the_padding_that_a_frozen_clip_leaves_out(name):
    stage, clip = build(name).eval(), tiny_clip()
    captions = ("red", "a box", "green", "white")
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    batch = Batch(keys=captions, images=images, captions=captions)
    trimmed = FrozenClip(clip, stage.needs)(batch)
    padded = replace(trimmed, text=clip.encode_text(captions))
    longest = int(padded.text.mask.sum(dim=1).max())
    assert trimmed.text.states.shape[1] == longest < padded.text.states.shape[1]
    # Rounding may depend on the length of what is added up.
    ours, theirs = (
        stage(some, Randomness.for_step(0, 0, 0, 4))["loss"] for some in (trimmed, padded)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_missing_captions_are_named():
    with pytest.raises(TrainingError, match="no captions"):
        FrozenClip(tiny_clip(), DiffusionPrior.needs)(Batch(keys=("a.png",)))


def test_another_clip_neither_resumes_nor_fine_tunes(tmp_path):
    stage, _ = run_training(tmp_path / "prior", "prior", max_steps=2)
    torch.manual_seed(9)
    retrained = Clip(TINY.clip, tiny_clip().tokenizer)
    other = FrozenClip(retrained, stage.needs)
    config = TrainingConfig(steps=6, batch=8, lr=1e-3)
    both = f"{tiny_clip().identity().image}, {retrained.identity().image}"
    with pytest.raises(CheckpointError, match=rf"was trained on another CLIP \(.*{both}\)"):
        train(build("prior"), Squares(), config, tmp_path / "prior", conditioner=other)
    with pytest.raises(TrainingError, match=rf"the prior was trained on another CLIP \(.*{both}\)"):
        train(stage, Squares(), config, tmp_path / "new", conditioner=other)
    assert not (tmp_path / "new").exists()


def test_runs_older_than_the_record_resume(tmp_path):
    run_training(tmp_path / "prior", "prior", max_steps=2)
    path = tmp_path / "prior" / "config.json"
    values = json.loads(path.read_text())
    assert values["stage"]["config"].pop("clip")["image"] == tiny_clip().identity().image
    path.write_text(json.dumps(values))
    stage, report = run_training(tmp_path / "prior", "prior", max_steps=2)
    assert report.step == 4
    assert stage.config.clip == tiny_clip().identity()
