"""``unclip train`` on what is there already: a CLIP, embeddings, a trained stage."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from unclip.checkpoint import load_stage, read_config, read_index, write_index
from unclip.cli import run
from unclip.data.embeddings import EmbeddedSource
from unclip.images import decode

TINY = ["--preset", "tiny", "--set", "training.steps=2", "--set", "training.batch=4"]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")


def test_the_prior_trains_on_the_clip_of_a_model_from_kept_embeddings(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = tmp_path / "embeddings"
    decoded = []
    monkeypatch.setattr(
        "unclip.data.source.decode", lambda path: decoded.append(path) or decode(path)
    )
    for model, images in (("first", 16), ("second", 0)):
        decoded.clear()
        command = ["train", "prior", str(photos), "-o", str(tmp_path / model), *TINY]
        command += ["--clip", str(tiny_model), "--embeddings", str(embeddings)]
        assert run(command) == 0
        assert len(decoded) == images, "images are decoded to be embedded once, then never"
    assert read_index(tmp_path / "first").folders() == ["prior"], "the CLIP is another model's"
    config = read_config(tmp_path / "first" / "prior")[1]
    assert config.clip == load_stage(tiny_model / "clip").identity()
    first, second = (load_stage(tmp_path / name / "prior") for name in ("first", "second"))
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_prior_on_another_models_clip_is_joined_with_it(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, both = str(tmp_path / "mine"), str(tmp_path / "both")
    assert run(["train", "prior", str(photos), "-o", mine, "--clip", str(tiny_model), *TINY]) == 0
    few = ["--size", "64", "--decoder.steps", "2", "--prior.steps", "2", "-o", str(tmp_path)]
    capsys.readouterr()
    assert run(["generate", "a ball", "--model", mine, *few]) == 2
    assert "mine has no clip yet: join the model with another" in capsys.readouterr().err
    assert run(["info", mine]) == 0
    assert run(["import", f"{tiny_model}+{mine}", both]) == 0
    assert run(["generate", "a ball", "--model", both, *few]) == 0


def test_the_decoder_sees_images_and_kept_embeddings(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    sample = EmbeddedSource.sample

    def noted(self, index):
        used.append(index)
        return sample(self, index)

    monkeypatch.setattr(EmbeddedSource, "sample", noted)
    command = ["train", "decoder", str(photos), "-o", str(tmp_path / "mine"), *TINY]
    command += ["--clip", str(tiny_model / "clip"), "--embeddings", str(tmp_path / "z")]
    assert run(command) == 0
    assert len(used) >= 8


def test_a_low_rank_fine_tuning_is_merged_and_can_be_merged_again(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "prior", str(photos), "-o", str(tmp_path / "tuned"), *TINY]
    command += ["--clip", str(tiny_model), "--from", str(tiny_model), "--lora", "2"]
    assert run([*command, "--set", "training.lr=0.1"]) == 0
    tuned = load_stage(tmp_path / "tuned" / "prior")
    base = load_stage(tiny_model / "prior")
    names = {n for n, p in tuned.named_parameters() if not p.equal(base.get_parameter(n))}
    assert names
    assert all(name.endswith("weight") for name in names)
    assert tuned.config.clip is not None

    adapter = tmp_path / "tuned" / "training" / "prior" / "adapter"
    again = tmp_path / "again"
    assert run(["merge", str(tiny_model / "prior"), str(adapter), str(again)]) == 0
    assert "the prior with its adapter" in capsys.readouterr().out
    for mine, theirs in zip(load_stage(again).parameters(), tuned.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert run(["merge", str(tiny_model / "prior"), str(adapter), str(again)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("alone", [False, True])
def test_a_fine_tuned_stage_keeps_the_sampling_of_its_model(
    photos: Path, tiny_model: Path, tmp_path: Path, alone: bool
) -> None:
    theirs = shutil.copytree(tiny_model, tmp_path / "theirs")
    index = read_index(theirs)
    defaults = index.defaults.updated({"prior": {"guidance": 5.0}, "decoder": {"steps": 7}})
    write_index(theirs, index.model_copy(update={"defaults": defaults}))
    start = shutil.copytree(theirs / "prior", tmp_path / "alone") if alone else theirs
    command = ["train", "prior", str(photos), "-o", str(tmp_path / "tuned"), *TINY]
    assert run([*command, "--clip", str(tiny_model), "--from", str(start)]) == 0
    said = read_index(tmp_path / "tuned").defaults.model_dump(exclude_unset=True)
    assert said["decoder"]["steps"] == index.defaults.decoder.steps, "the preset's"
    if alone:
        assert "prior" not in said, "the preset's may not suit it"
    else:
        assert said["prior"]["guidance"] == 5.0


def test_a_retrained_clip_voids_what_was_trained_on_it(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tmp_path / "mine")
    for stage in ("clip", "prior", "decoder"):
        assert run(["train", stage, str(photos), "-o", model, *TINY]) == 0
    shutil.rmtree(tmp_path / "mine" / "training" / "clip")
    again = [*TINY, "--set", "training.seed=7"]
    assert run(["train", "clip", str(photos), "-o", model, *again]) == 0
    capsys.readouterr()
    assert run(["train", "prior", str(photos), "-o", model, *TINY]) == 2
    assert "was trained on another CLIP" in capsys.readouterr().err
    assert run(["generate", "a ball", "--model", model, "--size", "64"]) == 2
    assert "the prior was trained on another CLIP than lies here" in capsys.readouterr().err


def test_the_bias_starts_from_the_batch_that_is_trained(photos: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine"
    command = ["train", "clip", str(photos), "-o", str(model), *TINY, "--max-steps", "1"]
    assert run([*command, "--set", "training.batch=16"]) == 0
    assert json.loads((model / "clip" / "config.json").read_text())["config"]["planned_batch"] == 16


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("train prior PHOTOS --lora 4", "say which with --from"),
        ("train clip PHOTOS --embeddings here", "no clip reads image embeddings"),
        ("train upsampler PHOTOS --clip TINY", "--clip: no upsampler reads image embeddings"),
        ("train decoder PHOTOS --clip TINY --to 256", "sizes of upsamplers, not of a decoder"),
        ("train upsampler PHOTOS --caption-column text", "no upsampler reads captions"),
        ("train prior PHOTOS --clip nowhere", "nowhere"),
        ("train prior PHOTOS --clip TINY --from nowhere", "nowhere"),
        ("train prior PHOTOS --clip TINY --from TINY --lora 0", "1 or more, not 0"),
        ("merge TINY/prior TINY/decoder OUT", "is no adapter folder"),
    ],
)
def test_mistakes_are_told(
    command: str,
    complaint: str,
    photos: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for word, path in (("PHOTOS", photos), ("TINY", tiny_model), ("OUT", tmp_path / "out")):
        command = command.replace(word, str(path))
    preset = ["--preset", "tiny"] if command.startswith("train") else []
    assert run([*command.split(), *preset]) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_without_a_clip_the_way_out_is_told(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "prior", str(photos), "-o", str(tmp_path / "new"), *TINY]) == 2
    assert "train one there first, or name one with --clip" in capsys.readouterr().err
