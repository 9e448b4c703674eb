"""Every study runs from end to end on a model of random weights and plain squares as drawings."""

import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from study import Study, main
from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import Clip
from unclip.presets import preset
from unclip.prior.kinds import build_prior
from unclip.randomness import Randomness
from unclip.types import Batch

STUDIES = ("binding", "components", "conditioning", "decoder_guidance", "diversity",
           "dot_percentile", "interpolations", "inversion", "prior_guidance", "text_diffs",
           "typographic_attack", "variations")  # fmt: skip
SMALLER = {"LABELS": 3, "STEPS": (3, 4), "SCENES": range(40), "DIMENSIONS": (1, 4),
           "CURVE_STEPS": 4, "AT_ONCE": 3, "PERCENTILES": (0.0, 0.5)}  # fmt: skip
BARS = {"variations": 2, "text_diffs": 2, "interpolations": 8, "inversion": 8}
MOST_BYTES = 300_000
"""Of a study's pictures, since results are committed; random ones are the least compressible."""


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


@pytest.fixture(scope="module")
def writing_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with an autoregressive prior of random weights."""
    folder = tmp_path_factory.mktemp("autoregressive") / "model"
    shutil.copytree(tiny_model, folder)
    shutil.rmtree(folder / "prior")
    clip = load_stage(folder / "clip")
    prior = build_prior(preset("tiny").with_autoregressive().prior(clip.config))
    captions = tuple(f"picture {number}" for number in range(64))
    text = clip.encode_text(captions)
    noise = Randomness(range(64)).normal(text.embedding.shape[1])
    images = torch.nn.functional.normalize(text.embedding + 0.1 * noise, dim=1)
    prior.codec.fit([Batch(keys=captions, text=text, image_embedding=images)])
    save_stage(prior, folder / "prior")
    return folder


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_shows_what_the_page_says(name: str) -> None:
    page = (Path(__file__).parents[2] / "experiments" / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{name}` \| (.*?) \|", page, re.MULTILINE)
    study: Study = import_module(name).STUDY
    assert study.shows.split(",")[0] in row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_runs(
    name: str, words: list[str], writing_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*words, f"--model={writing_model}"] if name == "dot_percentile" else words
    module, codes = import_module(name), import_module("codes")
    if hasattr(module, "SCALES"):
        monkeypatch.setattr(module, "SCALES", module.SCALES[:2])
    for constant, value in SMALLER.items():
        if hasattr(module, constant):
            monkeypatch.setattr(module, constant, value)
    if name == "diversity":  # its points are another study's
        guidance = import_module("decoder_guidance")
        monkeypatch.setattr(guidance, "SCALES", guidance.SCALES[:2])
    monkeypatch.setattr(codes, "INVERSION", codes.INVERSION.updated({"steps": 4}))
    monkeypatch.setattr(codes, "EXACT", 2)
    study: Study = module.STUDY
    results = main(study, words)
    assert (results / "plot.png").stat().st_size > 1000
    numbers = json.loads((results / "numbers.json").read_text())
    assert numbers["complete"]
    assert len(numbers.get("bars", ())) == BARS.get(name, 0)
    assert all(study.ours(numbers).values())
    assert sum(path.stat().st_size for path in results.glob("*.png")) < MOST_BYTES
    assert list(_values(numbers, "standard_error")), "figures have standard errors"
    values = list(_values(numbers, "value"))
    assert values.count(None) <= len(values) / 3, "so few pictures leave some figures open"


def _values(node: object, name: str):
    if isinstance(node, dict):
        if name in node:
            yield node[name]
        for inner in node.values():
            yield from _values(inner, name)
    elif isinstance(node, list):
        for inner in node:
            yield from _values(inner, name)
