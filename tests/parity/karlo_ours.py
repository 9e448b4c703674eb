"""Stages of ours out of a foreign checkpoint, in memory; how far two outputs part."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoint import STAGES
from unclip.clip.clip import Clip
from unclip.types import TextFeatures
from unclip.weights.family import Family, Import, Part
from unclip.weights.source import open_source


def planned(folder: Path, family: Family, reference: str = "diffusers") -> Import:
    source = open_source(str(folder))
    assert family.recognises(source)
    return family.plan(source, reference)  # type: ignore[arg-type]


def built(part: Part) -> Any:
    """The stage a part describes, with its weights, in float32."""
    stage: Any
    if part.name == "clip":
        assert part.save_extras is not None
        with TemporaryDirectory() as folder:
            part.save_extras(Path(folder))
            stage = Clip.from_config(part.config, Path(folder))  # type: ignore[arg-type]
    else:
        stage = STAGES[part.name.split("-")[0]][0](part.config)
    stage.load_state_dict(dict(part.tensors()))
    return stage.eval().requires_grad_(requires_grad=False)


def stages(imported: Import) -> dict[str, Any]:
    return {part.name: built(part) for part in imported.parts}


def text_features(embedding: Tensor, states: Tensor, mask: Tensor) -> TextFeatures:
    nothing = torch.zeros(len(mask), 0, dtype=torch.int64)
    return TextFeatures(embedding, states, mask, nothing, nothing.bool())


def apart(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference, in standard deviations of theirs."""
    assert mine.shape == theirs.shape
    return float((mine - theirs).abs().max() / theirs.std())
