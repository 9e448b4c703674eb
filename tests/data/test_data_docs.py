"""The Python of docs/data.md runs as it stands."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from unclip.data.loader import Loader
from unclip.identity import ClipIdentity


class Encoder:
    def __init__(self) -> None:
        self.network = nn.Linear(3, 4)

    def identity(self) -> ClipIdentity:
        return ClipIdentity(name="a colour meter")

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images.mean((2, 3)))


def test_the_examples_run(
    folder: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    page = Path(__file__).parents[2] / "docs" / "data.md"
    examples = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert len(examples) == 2
    monkeypatch.chdir(folder(20).parent)
    monkeypatch.setattr("unclip.checkpoint.load_stage", {Path("mine/clip"): Encoder()}.__getitem__)
    names: dict = {}
    for example in examples:
        exec(example, names)
    assert capsys.readouterr().out.count("torch.Size([8, 3, 64, 64])") == 10
    loader = names["loader"]
    assert isinstance(loader, Loader)
    assert next(loader.batches()).image_embedding.shape == (256, 4)
