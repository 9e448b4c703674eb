"""Adapters: what is trained and saved of a stage, and that merging them gives what was trained."""

import json
import shutil
from copy import deepcopy

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.adapter import ADAPTER, ADAPTER_CONFIG, merge
from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import Clip
from unclip.decoder.decoder import Decoder
from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.images import to_pil
from unclip.presets import preset
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.randomness import Randomness
from unclip.training.conditioner import FrozenClip
from unclip.training.config import TrainingConfig
from unclip.training.lora import add_adapter, lower_frozen, save_adapter
from unclip.training.trainer import train
from unclip.types import Batch, finish

TINY = preset("tiny")


def build(name):
    torch.manual_seed(3)
    stages = {"prior": (DiffusionPrior, TINY.prior), "decoder": (Decoder, TINY.decoder)}
    kind, config = stages[name]
    stage = kind(config(TINY.clip))
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return stage


@pytest.fixture(scope="module")
def conditioner():
    torch.manual_seed(4)
    return FrozenClip(Clip.from_config(TINY.clip), Decoder.needs)


def batch_of(start):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(start))
    return Batch(tuple(f"{start}/{i}" for i in range(4)), images.clamp(-1, 1), ("a", "b", "c", "d"))


class Noise:
    def batches(self, start):
        while True:
            yield batch_of(start)
            start += 1


def loss(stage, conditioner):
    with torch.no_grad():
        return float(stage(conditioner(batch_of(77)), Randomness(range(4)))["loss"])


def run_training(run, stage, conditioner, max_steps=None, preview=None, **changes):
    values = {"steps": 4, "batch": 4, "lr": 1e-2, "warmup": 0, "precision": "fp32"}
    return train(
        stage,
        Noise(),
        TrainingConfig(**(values | changes)),
        run,
        conditioner=conditioner,
        preview=preview,
        max_steps=max_steps,
        device="cpu",
    )


@pytest.mark.parametrize("name", ["prior", "decoder"])
def test_merging_gives_what_was_trained(name, tmp_path, conditioner):
    base = build(name)
    save_stage(base, tmp_path / "base")
    before, start = deepcopy(base.state_dict()), loss(base.eval(), conditioner)
    add_adapter(base, rank=2)
    assert loss(base, conditioner) == start, "an adapter begins as nothing"
    report = run_training(tmp_path / "run", base, conditioner, ema_half_life=0, lr=0.1)
    trained = loss(base.eval(), conditioner)
    assert abs(trained - start) > 1e-3

    merged = load_stage(tmp_path / "base").eval()
    merge(merged, report.folder)
    assert loss(merged, conditioner) == pytest.approx(trained, rel=1e-5)
    changed = {k for k, v in merged.state_dict().items() if not v.equal(before[k])}
    linear = {f"{k}.weight" for k, m in merged.named_modules() if type(m) is torch.nn.Linear}
    assert {key for key in changed if not before[key].isnan().any()} == linear

    held = load_file(report.folder / ADAPTER)
    assert set(map(tuple, ((min(v.shape),) for v in held.values()))) == {(2,)}
    assert json.loads((report.folder / ADAPTER_CONFIG).read_text())["r"] == 2
    assert report.folder.name == "adapter"
    assert not (tmp_path / "run" / name).exists(), "no whole stage is written on the way"


def test_peft_reads_the_adapter(tmp_path, conditioner):
    from peft import PeftModel

    base = build("prior")
    again = deepcopy(base)
    add_adapter(base, rank=3)
    report = run_training(tmp_path / "run", base, conditioner, ema_half_life=0, lr=0.1)
    config = again.__dict__.pop("config")  # peft expects one of transformers there, or none
    theirs = PeftModel.from_pretrained(again, report.folder).merge_and_unload()
    theirs.config = config
    assert loss(theirs.eval(), conditioner) == pytest.approx(
        loss(base.eval(), conditioner), rel=1e-5
    )


def test_a_state_holds_the_adapter_alone_and_resumes_bit_for_bit(tmp_path, conditioner):
    straight = build("prior")
    add_adapter(straight, rank=2)
    run_training(tmp_path / "straight", straight, conditioner)
    for steps in (2, None):
        resumed = build("prior")
        add_adapter(resumed, rank=2)
        run_training(tmp_path / "parts", resumed, conditioner, steps)
    for (key, mine), theirs in zip(resumed.named_parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, theirs), key
    state = tmp_path / "parts" / "state" / "step-00000004"
    for file in ("raw", "ema", "optimizer"):
        names = [key for key in load_file(state / f"{file}.safetensors") if "posterior" not in key]
        assert names
        assert all(".lora_" in key for key in names), file
    other = build("prior")
    add_adapter(other, rank=4)
    with pytest.raises(CheckpointError, match=r"adapter\.rank is 2 there, 4 now"):
        run_training(tmp_path / "parts", other, conditioner)
    with pytest.raises(CheckpointError, match="adapter"):
        run_training(tmp_path / "parts", build("prior"), conditioner)
    larger = build("prior")
    add_adapter(larger, rank=2, alpha=8.0)
    with pytest.raises(CheckpointError, match=r"adapter\.alpha is 2.* there, 8"):
        run_training(tmp_path / "parts", larger, conditioner)


def test_frozen_matrices_are_kept_in_the_dtype_of_the_computation(tmp_path, conditioner):
    kept = build("decoder")
    add_adapter(kept, rank=2)
    lowered = deepcopy(kept)
    lower_frozen(lowered, torch.bfloat16)
    frozen = [p for p in lowered.parameters() if not p.requires_grad and p.ndim in (2, 4)]
    assert {p.dtype for p in lowered.parameters() if p.requires_grad} == {torch.float32}
    assert sum(p.dtype == torch.bfloat16 for p in frozen) > 0.8 * len(frozen)
    with torch.autocast("cpu", torch.bfloat16):
        want, got = loss(kept.eval(), conditioner), loss(lowered.eval(), conditioner)
    assert got == pytest.approx(want, rel=2e-3)
    drawn = []

    def preview(stage):
        batch = conditioner(batch_of(0))
        how = SamplingOptions(steps=1)
        drawn.append(
            finish(stage.sample(batch.image_embedding, batch.text, how, Randomness(range(4))))
        )
        return to_pil(drawn[0][0])

    run_training(
        tmp_path / "run",
        kept,
        conditioner,
        None,
        preview,
        precision="bf16",
        steps=1,
        preview_every=1,
    )
    assert drawn[0].isfinite().all()
    assert any(p.dtype == torch.bfloat16 for p in kept.parameters())


@pytest.fixture
def adapter(tmp_path):
    stage = build("prior")
    add_adapter(stage, rank=2)
    save_adapter(stage, tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_merges_into_its_own_base_only(adapter):
    merge(build("prior"), adapter)
    with pytest.raises(CheckpointError, match="an adapter for a prior, not for a decoder"):
        merge(build("decoder"), adapter)
    other = build("prior")
    with torch.no_grad():
        other.network.out.weight.neg_()
    with pytest.raises(CheckpointError, match=r"trained on other weights than this prior's"):
        merge(other, adapter)


def test_damaged_adapters_are_refused(adapter, tmp_path):
    with pytest.raises(CheckpointError, match="no adapter folder"):
        merge(build("prior"), tmp_path / "nothing")
    config = json.loads((adapter / ADAPTER_CONFIG).read_text())
    for change in ({"use_dora": True}, {"peft_type": "IA3"}, {"rank_pattern": {"out": 8}}):
        (adapter / ADAPTER_CONFIG).write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match="merge it by peft"):
            merge(build("prior"), adapter)
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(config))
    tensors = load_file(adapter / ADAPTER)
    first = next(key for key in tensors if ".lora_A." in key)
    save_file(tensors | {first: torch.zeros(2, 999)}, adapter / ADAPTER)
    with pytest.raises(CheckpointError, match="does not fit the prior"):
        merge(build("prior"), adapter)
    shutil.copy(adapter / ADAPTER_CONFIG, adapter / ADAPTER)
    with pytest.raises(CheckpointError, match="cannot be read"):
        merge(build("prior"), adapter)


def test_without_peft_or_rank_the_way_out_is_told(monkeypatch):
    with pytest.raises(OptionError, match="1 or more, not 0"):
        add_adapter(build("prior"), rank=0)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(OptionError, match=r"pip install 'unclip\[lora\]'"):
        add_adapter(build("prior"), rank=2)
