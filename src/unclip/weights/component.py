"""A component of a diffusers pipeline as it is exported: a folder with config.json and weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from unclip.storage.folders import write_json
from unclip.weights.rename import Rule, renamed
from unclip.weights.tensors import Tensors
from unclip.weights.writer import write_tensors

DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model.safetensors", "model.safetensors"


@dataclass(frozen=True)
class LeftOut:
    """Something of ours that the other side's architecture has no place for."""

    what: str
    why: str


@dataclass(frozen=True)
class Component:
    """One network in the other side's names."""

    name: str
    """Its folder."""
    config: Mapping[str, Any]
    file: str
    tensors: Tensors
    """Ours."""
    rules: Sequence[Rule]
    """From our names to theirs; a rule without a name of theirs drops a tensor."""
    changes: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    """By their names: a factor that we apply to a layer's input, an order of its rows."""


def write_component(component: Component, folder: Path) -> None:
    """Write a component into ``folder``, tensor by tensor.

    Raises:
        OSError: it cannot be written.
        CheckpointError: our weights are damaged.
    """
    home = folder / component.name
    home.mkdir(parents=True)
    write_json(home / "config.json", component.config)
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in renamed(
            component.tensors.shapes_only(), component.rules, name=component.name
        )
    }
    write_tensors(home / component.file, shapes, _pairs(component), name=component.name)


def _pairs(component: Component) -> Iterator[tuple[str, Tensor]]:
    for key, tensor in renamed(component.tensors, component.rules, name=component.name):
        change = component.changes.get(key)
        yield key, tensor if change is None else change(tensor).contiguous()


def dropped(*names: str) -> list[Rule]:
    """Rules for tensors of ours that are not exported."""
    return [Rule(name) for name in names]
