"""The studies that train priors and CLIPs run from end to end, at the size of the preset `tiny`."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from study import main


@pytest.fixture
def words(tmp_path: Path, tiny_model: Path, packed: Path) -> list[str]:
    return [
        f"--model={tiny_model}",
        f"--evaluator={tmp_path / 'none'}",
        f"--cache={packed}",
        f"--work={tmp_path / 'work'}",
        f"--out={tmp_path / 'results'}",
        "--count=4",
        "--nice=0",
    ]


def run(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict:
    module = import_module(name)
    changed = {"SIZES": "tiny", "STEPS": 4, "BATCH": 8, "CAPTIONS": 20, "SEEDS": 2}
    changed["UNSEEN"] = range(100, 140)
    for constant, value in changed.items():
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, value)
    results = main(module.STUDY, words)
    assert (results / "plot.png").stat().st_size > 1000
    return json.loads((results / "numbers.json").read_text())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
def test_both_priors_are_trained_alike_and_compared(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = run("priors", words, monkeypatch)
    priors = numbers["priors"]
    assert {name.split(",")[0] for name in priors} == {"diffusion", "autoregressive"}
    assert {found["cost"]["embeddings"] for found in priors.values()} == {32}
    for found in priors.values():
        assert -1 <= found["cosine to the true z_i"]["value"] <= 1
        assert found["distance between seeds"]["standard_error"] is not None
    assert set(numbers["spectra"]) == {"real z_i", *priors}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
def test_clips_with_and_without_sam_get_equal_compute(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = run("sam_spectrum", words, monkeypatch)["clips"]
    steps = {name: found["cost"]["steps"] for name, found in clips.items()}
    assert steps == {
        "without SAM": 4,
        "without SAM, half the steps": 2,
        "with SAM, half the steps": 2,
    }
    assert all(sum(found["shares"]) == pytest.approx(1) for found in clips.values())
