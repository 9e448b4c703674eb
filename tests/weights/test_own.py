"""Folders of ours joined with one another by `+`; with foreign ones: tests/parity."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import unclip
from unclip.checkpoint import (
    Card,
    Index,
    load_stage,
    read_card,
    read_config,
    read_index,
    save_pipeline,
    save_stage,
    write_index,
)
from unclip.cli import run
from unclip.errors import CheckpointError
from unclip.loading import find
from unclip.options import GenerateOptions
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.runtime import choose_runtime
from unclip.training.conditioner import record_clip
from unclip.weights.convert import import_source


@pytest.fixture(scope="module")
def models(tiny_stages: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``first`` and ``second`` on one CLIP with priors of their own, ``other`` on another."""
    root = tmp_path_factory.mktemp("own")
    clip = tiny_stages["clip"]
    torch.manual_seed(3)
    stages = {name: stage for name, stage in tiny_stages.items() if name != "prior"}
    for name, licence, guidance in (("first", "MIT", 2.0), ("second", "BSD", 5.0)):
        prior = DiffusionPrior(tiny_stages["prior"].config)
        record_clip(prior, clip.identity())
        options = {"images": 1, "prior": {"guidance": guidance}, "candidates": int(guidance)}
        options["upsampler"] = {"256": {"steps": int(guidance)}}
        save_pipeline(
            root / name,
            {**stages, "prior": prior},
            defaults=GenerateOptions.parse(options, source="test"),
            card=Card(name=name, licence=licence),
        )
    torch.manual_seed(4)
    other = type(clip)(clip.config, clip.tokenizer)
    save_stage(other, root / "other" / "clip")
    return root


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    mine, theirs = weights(one), weights(other)
    exactly = {"rtol": 0, "atol": 0, "equal_nan": True}  # what is not measured yet is NaN
    return mine.keys() == theirs.keys() and all(
        mine[k].allclose(theirs[k], **exactly) for k in mine
    )


def test_a_stage_of_one_model_goes_into_another(models: Path, tmp_path: Path) -> None:
    dest = import_source(f"{models / 'first'}+{models / 'second' / 'prior'}", tmp_path / "both")
    assert same(dest / "prior", models / "second" / "prior")
    assert not same(dest / "prior", models / "first" / "prior")
    for name in ("clip", "decoder", "upsampler-256", "upsampler-1024"):
        assert same(dest / name, models / "first" / name)
        assert read_config(dest / name)[1].model_copy(update={"clip": None}) == read_config(
            models / "first" / name
        )[1].model_copy(update={"clip": None})
    assert load_stage(dest / "clip").tokenizer.encode(["a"], 8)[0].tolist() == (
        load_stage(models / "first" / "clip").tokenizer.encode(["a"], 8)[0].tolist()
    )
    index = read_index(dest)
    assert index.card.licence == "MIT; BSD"
    assert index.card.source == "first+prior"
    assert index.card.family == "unclip+unclip"
    # The prior's sampling comes with it, and nothing else of that model's.
    said = index.defaults.model_dump(exclude_unset=True)
    assert (said["prior"]["guidance"], said["candidates"]) == (5.0, 5)
    assert said["upsampler"]["256"]["steps"] == 2


def test_of_two_models_the_later_one_wins(models: Path, tmp_path: Path) -> None:
    dest = import_source(f"{models / 'first'}+{models / 'second'}", tmp_path / "both")
    assert same(dest / "prior", models / "second" / "prior")
    assert read_index(dest).defaults.upsampler["256"].steps == 5


def test_generate_takes_joined_names(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "cache"))
    name = f"{models / 'first'}+{models / 'second' / 'prior'}"
    folder = find(name)
    assert folder.parent == tmp_path / "cache"
    assert find(name) == folder
    assert unclip.load(name, choose_runtime("cpu", "fp32")).defaults.candidates == 5


def test_shipped_models_are_joined_by_name(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unclip.loading.shipped", lambda: {"ours": models / "first"})
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "cache"))
    dest = tmp_path / "both"
    assert run(["import", f"ours+{models / 'second' / 'prior'}", str(dest)]) == 0
    assert same(dest / "prior", models / "second" / "prior")
    assert find(f"ours+{models / 'second' / 'prior'}").parent == tmp_path / "cache"
    with pytest.raises(CheckpointError, match=r"no model 'ours\+nothing'"):
        find("ours+nothing")


def test_a_replaced_stage_takes_its_sampling_with_it(models: Path, tmp_path: Path) -> None:
    lone = shutil.copytree(models / "second" / "prior", tmp_path / "lone")
    dest = import_source(f"{models / 'first'}+{lone}", tmp_path / "both")
    said = read_index(dest).defaults.model_dump(exclude_unset=True)
    assert "prior" not in said
    assert "candidates" not in said
    assert read_card(lone) == Card()
    assert read_index(dest).card.name == "first+lone"


def test_a_model_of_one_stage_says_nothing_of_others(models: Path, tmp_path: Path) -> None:
    """As `unclip train prior -o tuned` writes it: the whole preset's sampling beside one stage."""
    tuned = tmp_path / "tuned"
    shutil.copytree(models / "second" / "prior", tuned / "prior")
    said = {"tile": 64, "prior": {"guidance": 6.0}, "decoder": {"steps": 14, "end": 0.12}}
    said["upsampler"] = {"256": {"steps": 9}, "1024": {"steps": 9}}
    index = Index(defaults=GenerateOptions.parse(said, source="test"), card=Card(name="tuned"))
    write_index(tuned, index.naming("prior"))
    dest = import_source(f"{models / 'first'}+{tuned}", tmp_path / "both")
    found = read_index(dest).defaults.model_dump(exclude_unset=True)
    assert found["prior"]["guidance"] == 6.0
    assert found["tile"] == 64, "an option of no stage"
    assert "candidates" not in found, "the first model's prior had them"
    assert "decoder" not in found
    assert {size: how["steps"] for size, how in found["upsampler"].items()} == {"256": 2}


@pytest.mark.parametrize("order", ["first+other/clip", "other/clip+first/prior"])
def test_another_clip_is_refused(models: Path, tmp_path: Path, order: str) -> None:
    names = "+".join(str(models / name) for name in order.split("+"))
    with pytest.raises(CheckpointError, match=r"the prior was trained on another CLIP .*tower"):
        import_source(names, tmp_path / "both")
    assert not list(tmp_path.iterdir())


def test_parts_without_a_clip_are_compared_with_each_other(models: Path, tmp_path: Path) -> None:
    prior, decoder = models / "first" / "prior", tmp_path / "decoder"
    shutil.copytree(models / "first" / "decoder", decoder)
    dest = import_source(f"{prior}+{decoder}", tmp_path / "half")
    assert (read_index(dest).clip, read_index(dest).prior) == (None, "prior")
    stage = load_stage(decoder)
    record_clip(stage, load_stage(models / "other" / "clip").identity())
    save_stage(stage, decoder)
    with pytest.raises(CheckpointError, match="prior and decoder were trained on different CLIPs"):
        import_source(f"{prior}+{decoder}", tmp_path / "again")


def test_what_is_known_of_a_clip_is_kept(models: Path, tmp_path: Path) -> None:
    """A CLIP without its image tower does not make a prior forget that tower's fingerprint."""
    known = read_config(models / "first" / "prior")[1].clip
    assert known.image
    clip = load_stage(models / "first" / "clip")
    texts = type(clip)(clip.config.model_copy(update={"image": None}), clip.tokenizer)
    texts.network.text.load_state_dict(clip.network.text.state_dict())
    save_stage(texts, tmp_path / "texts")
    assert load_stage(tmp_path / "texts").identity().image is None
    dest = import_source(f"{models / 'first'}+{tmp_path / 'texts'}", tmp_path / "both")
    assert read_config(dest / "prior")[1].clip == known


def test_a_damaged_part_is_named(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(models / "first", tmp_path / "model")
    write_index(model, read_index(model).model_copy(update={"decoder": "nowhere"}))
    command = ["import", f"{model}+{models / 'second' / 'prior'}", str(tmp_path / "both")]
    assert run(command) == 2
    assert "it has no nowhere/config.json" in capsys.readouterr().err
    assert not (tmp_path / "both").exists()
