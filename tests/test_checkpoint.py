"""Folders of stages and models: exact both ways, strict on reading, whole or not at all."""

import json
import os
import resource
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import unclip.pipeline
from unclip import checkpoint
from unclip.checkpoint import (
    CONFIG,
    INDEX,
    WEIGHTS,
    Card,
    Index,
    count_parameters,
    fingerprint,
    load_pipeline,
    load_stage,
    read_index,
    save_pipeline,
    save_stage,
    write_index,
)
from unclip.errors import CheckpointError
from unclip.loading import find, load
from unclip.options import GenerateOptions
from unclip.presets import preset
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.runtime import Runtime, place
from unclip.upsampler.upsampler import Upsampler

FLOAT32 = Runtime(torch.device("cpu"), torch.float32, channels_last=False, compile=False)
FOLDERS = ("clip", "prior", "decoder", "upsampler-256", "upsampler-1024")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let the system refuse larger files, as it does when a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# --- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_a_stage_comes_back_bit_for_bit(
    name: str, tiny_stages: dict[str, Any], tmp_path: Path
) -> None:
    stage = tiny_stages[name]
    save_stage(stage, tmp_path / "deep" / name)
    again = load_stage(tmp_path / "deep" / name)
    assert type(again) is type(stage)
    told = {"identity": stage.identity()} if name == "clip" else {}
    assert again.config == stage.config.model_copy(update=told)
    mine, theirs = stage.state_dict(), again.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        assert torch.equal(value.nan_to_num(), theirs[key].nan_to_num()), key
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert [file.name for file in (tmp_path / "deep").iterdir()] == [name]


def test_memory_format_leaves_no_trace(tiny_stages: dict[str, Any], tmp_path: Path) -> None:
    save_stage(tiny_stages["decoder"], tmp_path / "plain")
    stage = load_stage(tmp_path / "plain")
    place(stage, Runtime(torch.device("cpu"), torch.float32, channels_last=True, compile=False))
    save_stage(stage, tmp_path / "strided")
    assert contents(tmp_path / "strided") == contents(tmp_path / "plain")


def test_other_weights_can_be_written(tiny_stages: dict[str, Any], tmp_path: Path) -> None:
    stage = tiny_stages["prior"]
    halved = {key: value / 2 for key, value in stage.state_dict().items()}
    save_stage(stage, tmp_path / "prior", weights=halved)
    again = load_stage(tmp_path / "prior").state_dict()
    assert all(torch.equal(again[key], value) for key, value in halved.items() if "mse" not in key)


def test_a_pipeline_comes_back_whole(
    tiny_model: Path, tiny_stages: dict[str, Any], tmp_path: Path
) -> None:
    pipeline = load_pipeline(tiny_model, FLOAT32)
    defaults = preset("tiny").defaults
    assert pipeline.defaults.model_dump(exclude_unset=True) == defaults.model_dump(
        exclude_unset=True
    )
    assert pipeline.sizes == (64, 256, 1024)
    assert pipeline.name == "tiny"
    index = read_index(tiny_model)
    assert index.card == Card(name="tiny", description="random weights", licence="Apache-2.0")
    with pipeline.decoder.use() as decoder:
        mine = tiny_stages["decoder"].state_dict()
        assert all(torch.equal(mine[key], value) for key, value in decoder.state_dict().items())
        assert not any(parameter.requires_grad for parameter in decoder.parameters())
        assert not decoder.training
    save_pipeline(tmp_path / "again", tiny_stages, defaults=defaults, card=index.card)
    assert contents(tmp_path / "again") == contents(tiny_model)
    assert count_parameters(tiny_model / "clip") == sum(
        value.numel() for value in tiny_stages["clip"].state_dict().values()
    )


def test_measured_tables_stay_float32(tmp_path: Path) -> None:
    tiny = preset("tiny")
    config = tiny.prior(tiny.clip).updated(
        {"scaling": "standardised", "diffusion": {"variance": "analytic"}}
    )
    torch.manual_seed(0)
    prior = DiffusionPrior(config)
    prior.space.measure(torch.randn(100, 32))
    prior.posterior.get_buffer("mse").copy_(torch.rand(1000))
    save_stage(prior, tmp_path / "prior", dtype=torch.bfloat16)
    stored = load_file(tmp_path / "prior" / WEIGHTS)
    tables = {"space.mean", "space.std", "posterior.mse"}
    for key, value in stored.items():
        assert value.dtype == (torch.float32 if key in tables else torch.bfloat16), key
    again = load_stage(tmp_path / "prior").state_dict()
    for key, value in prior.state_dict().items():
        expected = value if key in tables else value.bfloat16().float()
        assert torch.equal(again[key], expected), key


# --- strictness ------------------------------------------------------------------------------


def change_tensors(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def change_config(**changes: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        values = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(values | changes))

    return apply


def write(name: str, content: bytes) -> Callable[[Path], int]:
    return lambda folder: (folder / name).write_bytes(content)


def truncate(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[: len(whole) // 2])


def misshape(tensors: dict) -> None:
    tensors["network.out.weight"] = torch.zeros(7, 32)


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing tensor": (
        change_tensors(lambda t: t.pop("network.norm.bias")),
        "tensor network.norm.bias is missing",
    ),
    "extra tensor": (
        change_tensors(lambda t: t.update(more=torch.zeros(1))),
        "tensor more is not part of this stage",
    ),
    "misshapen tensor": (
        change_tensors(misshape),
        "network.out.weight has shape (7, 32), not (32, 32)",
    ),
    "truncated weights": (truncate, f"{WEIGHTS} is damaged"),
    "empty weights": (write(WEIGHTS, b""), f"{WEIGHTS} is damaged"),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"{WEIGHTS} does not exist"),
    "cut JSON": (write(CONFIG, b'{"format": 1,\n'), f"{CONFIG} is damaged: line 2"),
    "no text": (write(CONFIG, b"\xff\xfe\x00"), f"{CONFIG} is damaged"),
    "JSON of a list": (write(CONFIG, b"[1]"), "it does not hold an object"),
    "no config": (lambda folder: (folder / CONFIG).unlink(), f"{CONFIG} does not exist"),
    "unknown format": (change_config(format=99), "format 99 is not known"),
    "no format": (change_config(format=None), "format None is not known"),
    "unknown stage": (change_config(stage="painter"), "stage 'painter' is none of clip, prior"),
    "stage of a strange type": (change_config(stage=["prior"]), "is none of clip, prior"),
    "another stage": (change_config(stage="decoder"), "no such field"),
    "field too many": (change_config(config={"width": 3}), "width: no such field"),
    "config of a strange type": (change_config(config=3), "the stage's config is missing"),
    "no folder": (shutil.rmtree, f"{CONFIG} does not exist"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_error_that_names_it(damage: str, model: Path) -> None:
    apply, message = DAMAGES[damage]
    apply(model / "prior")
    with pytest.raises(CheckpointError) as caught:
        load_stage(model / "prior")
    assert message in str(caught.value)
    assert str(model / "prior") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clip_needs_its_vocabulary(model: Path) -> None:
    (model / "clip" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_stage(model / "clip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": "decoder"}, "holds a decoder, where the prior is expected"),
        ({"upsamplers": {"256": "clip"}}, "holds a clip, where the upsampler is expected"),
        ({"decoder": "nowhere"}, "does not exist"),
        ({"format": 2}, "unclip.json: format"),
        ({"upsamplers": {"1024": "upsampler-1024"}}, "but 64 to 1024 px is needed here"),
        ({"painter": "clip"}, "unclip.json: painter: no such field"),
        ({"defaults": {"decoder": {"steps": 0}}}, "unclip.json: defaults.decoder.steps"),
    ],
)
def test_a_model_that_does_not_fit_together(changes: dict, message: str, model: Path) -> None:
    values = json.loads((model / INDEX).read_text())
    (model / INDEX).write_text(json.dumps(values | changes))
    with pytest.raises(CheckpointError) as caught:
        load_pipeline(model, FLOAT32)
    assert message in str(caught.value)


def test_a_model_of_one_stage_says_what_it_lacks(
    tiny_stages: dict[str, Any], tmp_path: Path
) -> None:
    model = tmp_path / "mine"
    options = {"defaults": GenerateOptions(), "card": Card()}
    save_pipeline(model, {"prior": tiny_stages["prior"]}, **options)
    assert read_index(model).folders() == ["prior"]
    with pytest.raises(CheckpointError, match="mine has no clip yet: join the model with another"):
        load_pipeline(model, FLOAT32)
    save_pipeline(model, {"clip": tiny_stages["clip"]}, **options)
    with pytest.raises(
        CheckpointError,
        match=r"mine has no decoder yet: train one with `unclip train decoder DATA -o \S*mine`, or "
        r"join .*: `unclip import OTHER\+\S*mine DEST`",
    ):
        load_pipeline(model, FLOAT32)
    save_pipeline(model, {name: tiny_stages[name] for name in ("clip", "decoder")}, **options)
    with pytest.raises(CheckpointError, match="has no prior and draws no prompts"):
        load_pipeline(model, FLOAT32).generate("a ball")


def test_embeddings_of_another_clip_are_refused(model: Path) -> None:
    smaller = preset("tiny").clip.model_copy(update={"embedding": 16})
    wrong = preset("tiny").prior(smaller)
    save_stage(DiffusionPrior(wrong), model / "prior")
    with pytest.raises(CheckpointError, match="embeddings of size 16, its CLIP makes 32"):
        load_pipeline(model, FLOAT32)


def test_what_is_no_model_is_named(tiny_model: Path, tmp_path: Path) -> None:
    assert find(tiny_model) == tiny_model
    message = f"{tmp_path} is no model folder, .*, nor a checkpoint that can be imported; known: "
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path)
    with pytest.raises(CheckpointError, match=r"no model 'castle': give a model folder"):
        load("castle")


# --- whole or not at all ---------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_folder(tiny_stages: dict[str, Any], tmp_path: Path) -> None:
    save_stage(tiny_stages["prior"], tmp_path / "prior")
    before = contents(tmp_path)
    for stage in (tiny_stages["decoder"], tiny_stages["clip"]):
        with files_up_to(8192), pytest.raises(CheckpointError, match="prior cannot be written: "):
            save_stage(stage, tmp_path / "prior")
    assert contents(tmp_path) == before
    with files_up_to(8192), pytest.raises(CheckpointError, match="new cannot be written: "):
        save_stage(tiny_stages["prior"], tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["prior"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_no_space_is_said_in_words(
    error: Exception,
    tiny_stages: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(tensors: dict, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", fail)
    with pytest.raises(CheckpointError, match="no space left on the disk"):
        save_stage(tiny_stages["prior"], tmp_path / "prior")
    assert not any(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tiny_stages: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_stage(tiny_stages["prior"], tmp_path / "file" / "prior")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_index(tmp_path / "file", Index())


# --- memory, identity ------------------------------------------------------------------------


def alive_when_loading(
    model: Path, residency: checkpoint.Residency, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], dict[str, bool]]:
    """How many stages live after each load of a generation, and which are held at its end."""
    alive: weakref.WeakSet = weakref.WeakSet()
    counts = []

    def counting(folder: Path, runtime: Runtime | None = None, *, in_turns: bool) -> Any:
        stage = load_stage(folder, runtime, in_turns=in_turns)
        alive.add(stage)
        counts.append(len(alive))
        return stage

    monkeypatch.setattr(checkpoint, "load_stage", counting)
    pipeline = load_pipeline(model, FLOAT32, residency)
    slots = {
        "clip": pipeline.clip,
        "prior": pipeline.prior,
        "decoder": pipeline.decoder,
        **{str(size): slot for size, slot in pipeline.upsamplers.items()},
    }
    assert not any(slot.loaded for slot in slots.values()), "nothing loads before it is used"
    options = GenerateOptions(size=256).over(preset("tiny").defaults)
    for step in pipeline.stream("a cat", options):
        working = step.stage.split()[-1]
        assert slots[working].loaded
        if residency == "one":
            assert [name for name, slot in slots.items() if slot.loaded] == [working]
    return counts, {name: slot.loaded for name, slot in slots.items()}


def test_one_stage_at_a_time(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, held = alive_when_loading(tiny_model, "one", monkeypatch)
    assert counts == [1, 1, 1, 1, 1]  # clip, prior, decoder, upsampler, clip again for the score
    assert not any(held.values())


def test_a_stage_loads_once_for_several_batches(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    def noting(folder: Path, *rest: Any, **how: Any) -> Any:
        loads.append(folder.name)
        return load_stage(folder, *rest, **how)

    monkeypatch.setattr(checkpoint, "load_stage", noting)
    monkeypatch.setattr(unclip.pipeline, "ROUND", 2)
    options = GenerateOptions(size=256, images=3, batch=1).over(preset("tiny").defaults)
    drawn = load_pipeline(tiny_model, FLOAT32, "one").generate("a cat", options)
    assert loads == 2 * ["clip", "prior", "decoder", "upsampler-256", "clip"]
    kept = load_pipeline(tiny_model, FLOAT32, "all").generate("a cat", options)
    assert [one.seed for one in drawn] == [one.seed for one in kept]
    assert [one.image.tobytes() for one in drawn] == [one.image.tobytes() for one in kept]


def test_all_stages_are_kept_once_used(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, held = alive_when_loading(tiny_model, "all", monkeypatch)
    assert counts == [1, 2, 3, 4]
    assert held == {"clip": True, "prior": True, "decoder": True, "256": True, "1024": False}


@pytest.fixture
def relay(model: Path) -> Path:
    """A model whose upsampler has a network of its own for the last step."""
    config = preset("tiny").upsamplers[256].updated({"last_step": True})
    torch.manual_seed(1)
    stage = Upsampler(config)
    for parameter in stage.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    save_stage(stage, model / "upsampler-256")
    return model


def test_of_two_networks_of_a_stage_one_is_in_memory(relay: Path) -> None:
    """Two batches, so that each network is needed again after it was let go of."""
    options = GenerateOptions(size=256, images=2, batch=1).over(preset("tiny").defaults)
    frugal = load_pipeline(relay, FLOAT32, "one")
    seen = []
    walk = frugal.stream("a cat", options)
    while True:
        try:
            step = next(walk)
        except StopIteration as stop:
            drawn = stop.value
            break
        if step.stage == "upsampler 256":
            with frugal.upsamplers[256].use() as stage:
                there = [not part.time.linear_1.weight.is_meta for part in stage.network.children()]
            seen.append(tuple(there))
    total = len(seen) // 2
    assert total > 1
    assert seen == 2 * [*[(True, False)] * (total - 1), (False, True)]
    whole = load_pipeline(relay, FLOAT32, "all").generate("a cat", options)
    for one, other in zip(drawn, whole, strict=True):
        assert one.seed == other.seed
        assert one.image.tobytes() == other.image.tobytes()


@pytest.mark.parametrize("name", ["network.last.norm.weight", "network.first.norm.weight"])
def test_both_networks_of_a_stage_are_checked_when_it_loads(name: str, relay: Path) -> None:
    file = relay / "upsampler-256" / WEIGHTS
    save_file({key: value for key, value in load_file(file).items() if key != name}, file)
    with pytest.raises(CheckpointError, match=f"tensor {name} is missing"):
        load_stage(file.parent, FLOAT32, in_turns=True)


def test_a_cancelled_stage_is_let_go_of(tiny_model: Path) -> None:
    pipeline = load_pipeline(tiny_model, FLOAT32, "one")
    walk = pipeline.stream("a cat")
    next(walk)
    assert pipeline.prior.loaded
    walk.close()
    assert not pipeline.prior.loaded
    assert list(walk) == []


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS, "tokenizer.json"])
def test_the_fingerprint_follows_the_content(file: str, model: Path, tiny_model: Path) -> None:
    def print_of(folder: Path) -> str:
        return fingerprint(folder, read_index(folder))

    assert print_of(model) == print_of(tiny_model)
    assert load_pipeline(model, FLOAT32).fingerprint == print_of(model)
    (model / INDEX).write_text((model / INDEX).read_text().replace("random", "other"))
    assert print_of(model) == print_of(tiny_model), "a card changes no picture"
    content = bytearray((model / "clip" / file).read_bytes())
    content[-1] ^= 1
    (model / "clip" / file).write_bytes(content)
    assert print_of(model) != print_of(tiny_model)


def test_the_logit_scale_is_never_rounded(tiny_stages: dict[str, Any], tmp_path: Path) -> None:
    clip = tiny_stages["clip"]
    save_stage(clip, tmp_path / "clip", dtype=torch.bfloat16)
    again = load_stage(tmp_path / "clip")
    scale = clip.network.logit_scale
    assert scale.bfloat16().float() != scale, "else the test proves nothing"
    assert torch.equal(again.network.logit_scale, scale)
    rounded = again.network.text.state_dict()
    assert all(torch.equal(v, v.bfloat16().float()) for v in rounded.values() if v.ndim)
