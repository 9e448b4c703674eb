"""Every study runs from end to end on a model of random weights and plain squares as drawings."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from study import Study, main
from unclip.checkpoint import save_stage
from unclip.clip.clip import Clip
from unclip.presets import preset

STUDIES = ("binding", "components", "conditioning", "decoder_guidance", "diversity",
           "interpolations", "inversion", "prior_guidance", "text_diffs", "typographic_attack",
           "variations")  # fmt: skip
SMALLER = {"LABELS": 3, "STEPS": (3, 4), "SCENES": range(40), "DIMENSIONS": (1, 4)}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, packed: Path) -> list[str]:
    torch.manual_seed(9)
    folder = tmp_path_factory.mktemp("studies")
    save_stage(Clip.from_config(preset("tiny").clip), folder / "evaluator" / "clip")
    return [
        f"--model={tiny_model}",
        f"--evaluator={folder / 'evaluator'}",
        f"--cache={packed}",
        f"--work={folder / 'work'}",
        f"--out={folder / 'results'}",
        "--count=4",
        "--nice=0",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs(name: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, codes = import_module(name), import_module("codes")
    if hasattr(module, "SCALES"):
        monkeypatch.setattr(module, "SCALES", module.SCALES[:2])
    for constant, value in SMALLER.items():
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(codes, "INVERSION", codes.INVERSION.updated({"steps": 4}))
    monkeypatch.setattr(codes, "EXACT", 2)
    study: Study = module.STUDY
    results = main(study, words)
    assert (results / "plot.png").stat().st_size > 1000
    numbers = json.loads((results / "numbers.json").read_text())
    assert numbers
    assert list(_values(numbers, "standard_error")), "figures have standard errors"
    assert all(value is None or np.isfinite(value) for value in _values(numbers, "value"))


def _values(node: object, name: str):
    if isinstance(node, dict):
        if name in node:
            yield node[name]
        for inner in node.values():
            yield from _values(inner, name)
    elif isinstance(node, list):
        for inner in node:
            yield from _values(inner, name)
