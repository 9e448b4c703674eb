"""The autoregressive prior by commands: trained, resumed, put into a model, drawn with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unclip.checkpoint import load_stage
from unclip.cli import run
from unclip.loading import load
from unclip.options import GenerateOptions
from unclip.prior.autoregressive import AutoregressivePrior


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 3):
        Image.new("RGB", (32, 32), colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{colour}\n")
    return folder


def train(photos: Path, model: Path, clip: Path, *more: str) -> int:
    words = ["train", "prior", str(photos), "-o", str(model), "--clip", str(clip)]
    return run([*words, "--preset", "tiny", "--set", "training.steps=4", *more])


def test_it_trains_resumes_and_draws_in_any_model(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, clip = tmp_path / "mine", tiny_model / "clip"
    kind = ("--kind", "autoregressive")
    assert train(photos, mine, clip, *kind, "--max-steps", "2") == 0
    halfway = load_stage(mine / "prior")
    assert train(photos, mine, clip, *kind) == 0
    finished = load_stage(mine / "prior")
    assert isinstance(finished, AutoregressivePrior)
    assert finished.codec.measured
    assert torch.equal(finished.codec.components, halfway.codec.components)
    capsys.readouterr()
    assert train(photos, mine, clip) == 2, "another kind is another training"
    assert "kind is autoregressive there, diffusion now" in capsys.readouterr().err

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    shutil.rmtree(model / "prior")
    shutil.copytree(mine / "prior", model / "prior")
    assert run(["info", str(model), "--json"]) == 0
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)["stages"]["prior"]
    assert facts["config"]["kind"] == "autoregressive"
    held = facts["codec"]
    assert (held["tokens"], held["buckets"]) == (8, 8)
    assert held["variance"] == pytest.approx(1 - finished.codec.error)
    assert run(["info", str(model)]) == 0
    assert "8 tokens of 8 values" in capsys.readouterr().out

    options = GenerateOptions(size=64, seed=3).updated({"prior": {"dot_percentile": 0.75}})
    steps = [step.stage for step in load(model).stream("red", options)]
    assert steps[:8] == ["prior"] * 8, "one candidate, a step a token"
    out = tmp_path / "red.png"
    words = ["generate", "red", "-m", str(model), "-o", str(out), "--size", "64"]
    assert run([*words, "--prior.temperature", "0.5", "--prior.dot-percentile", "0.9"]) == 0
    with Image.open(out) as image:
        assert image.size == (64, 64)


def test_kinds_are_of_priors(
    photos: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "decoder", str(photos), "-o", str(tmp_path), "--kind", "autoregressive"]
    assert run(words) == 2
    assert "not of a decoder" in capsys.readouterr().err
    start = ("--from", str(tiny_model / "prior"), "--kind", "autoregressive")
    assert train(photos, tmp_path / "other", tiny_model / "clip", *start) == 2
    assert "holds a prior of kind diffusion" in capsys.readouterr().err
