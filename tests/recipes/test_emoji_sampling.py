from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from held_out import Question
from judge import BestOf, Judge
from try_sampling import TRIALS, changed

from unclip.presets import preset

DEFAULTS = preset("emoji").defaults


@pytest.mark.parametrize("name", TRIALS)
def test_a_trial_differs_from_the_defaults_in_what_it_says_alone(name: str) -> None:
    before = DEFAULTS.model_dump()
    after = changed(DEFAULTS, TRIALS[name]).model_dump()
    differing = {key for key in before if before[key] != after[key]}
    assert differing == set(TRIALS[name])
    for key in differing & {"prior", "decoder"}:
        fields = {name for name in before[key] if before[key][name] != after[key][name]}
        assert fields == set(TRIALS[name][key])
        assert {name: after[key][name] for name in fields} == TRIALS[name][key]


def test_the_best_of_four_is_what_the_models_clip_prefers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Seed s draws question q in grey s + 10 q; this CLIP prefers seed (q + 1) mod 4."""
    questions = [Question(f"q/{q}", str(q), np.zeros((1, 1, 3), np.uint8)) for q in range(6)]

    def draw(judge: Judge, name: str, asked: list[Question], *_: object) -> np.ndarray:
        greys = [judge.seed + 10 * q for q in range(len(asked))]
        return np.broadcast_to(np.uint8(greys)[:, None, None, None], (len(asked), 4, 4, 3))

    def encode_image(images: torch.Tensor) -> torch.Tensor:
        grey = ((images[:, 0, 0, 0] + 1) * 127.5).round().long()
        return torch.nn.functional.one_hot(grey, 64).float()

    def encode_text(captions: list[str]) -> SimpleNamespace:
        liked = torch.tensor([10 * int(q) + (int(q) + 1) % 4 for q in captions])
        return SimpleNamespace(embedding=torch.nn.functional.one_hot(liked, 64).float())

    monkeypatch.setattr(Judge, "draw", draw)
    model = SimpleNamespace(encode_image=encode_image, encode_text=encode_text)
    drawn = BestOf(model, None, tmp_path).draw("B", questions)  # type: ignore[arg-type]
    assert drawn[:, 0, 0, 0].tolist() == [1, 12, 23, 30, 41, 52]
