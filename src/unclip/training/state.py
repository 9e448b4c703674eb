"""The run folder's state: everything a training needs to continue as if never interrupted.

Each state is a folder ``run/state/step-00001200`` written beside and then renamed, the previous
one being deleted only afterwards, so that a complete one exists after a kill at any moment.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.identity import ClipIdentity
from unclip.storage.folders import flush, write_json

RAW, EMA, OPTIMIZER = "raw.safetensors", "ema.safetensors", "optimizer.safetensors"


@dataclass
class Progress:
    """How far a training is; written to ``state.json``.

    The loader's position is the step, and random numbers are derived from seed and step, so
    neither needs a state of its own.
    """

    step: int = 0
    """Optimiser steps done."""
    images: int = 0
    """Images seen, over all processes."""
    seconds: float = 0.0
    """Wall time spent training, over all resumed parts."""
    rewarmed_at: int | None = None
    """Step at which the optimiser's state was found missing."""
    pending: dict[str, float] = field(default_factory=dict)
    """Sums of losses not yet logged."""


def save_state(run: Path, progress: Progress, files: Mapping[str, Mapping[str, Tensor]]) -> Path:
    """Write one state; ``files`` maps file names to named tensors."""
    target = state_folder(run, progress.step)
    if target.exists():  # resumed from it and stopped at once: nothing new
        return target
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, tensors in files.items():
        save_file(_plain(tensors), partial / name)
        flush(partial / name)
    write_json(partial / "state.json", vars(progress))
    partial.rename(target)
    flush(target.parent)
    return target


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What safetensors writes: nothing strided and nothing that shares memory.

    Only what is gets copied: the optimiser's state is the largest thing in memory.
    """
    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        memory = value.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != value.nbytes:
            value = value.clone()
        seen.add(memory.data_ptr())
        plain[key] = value
    return plain


def prune_states(run: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` states, and what a kill left half-written."""
    for partial in (run / "state").glob("step-*.partial"):
        shutil.rmtree(partial)
    for old in _states(run)[: -max(1, keep)]:
        # Renamed first, so that a kill in the middle leaves no state that looks complete.
        dying = old.with_name(old.name + ".partial")
        old.rename(dying)
        shutil.rmtree(dying)


def latest_state(run: Path) -> Path | None:
    """Return the newest complete state of a run folder, if it has one."""
    states = _states(run)
    return states[-1] if states else None


def read_progress(folder: Path) -> Progress:
    """Read ``state.json``."""
    try:
        return Progress(**json.loads((folder / "state.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}/state.json cannot be read: {error}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None


def trained_names(stage: nn.Module) -> set[str]:
    """Names of the tensors a training changes: all of a state dict but frozen parameters."""
    named = stage.named_parameters(remove_duplicate=False)
    return set(stage.state_dict()) - {name for name, p in named if not p.requires_grad}


def chosen_tensors(module: nn.Module, names: set[str]) -> dict[str, Tensor]:
    """The tensors ``names`` of a state dict."""
    return {key: value for key, value in module.state_dict().items() if key in names}


@torch.no_grad()
def restore_module(module: nn.Module, path: Path, names: set[str]) -> None:
    """Copy the tensors ``names`` into ``module``.

    Raises:
        CheckpointError: naming keys that are missing, unknown or misshapen.
    """
    own, tensors = chosen_tensors(module, names), read_tensors(path)
    wrong = [f"{key} is missing" for key in own.keys() - tensors.keys()]
    wrong += [f"{key} is unknown" for key in tensors.keys() - own.keys()]
    wrong += [
        f"{key} has shape {tuple(tensors[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own.keys() & tensors.keys()
        if tensors[key].shape != own[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"{path} does not fit the stage: {'; '.join(sorted(wrong)[:3])}{more}"
        )
    for key, value in own.items():
        value.copy_(tensors[key])


def check_same_stage(run: Path, description: Mapping[str, Any]) -> None:
    """Refuse to resume a run folder with a stage of another name or config, or on another CLIP.

    Raises:
        CheckpointError: naming what differs.
    """
    path = run / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read: {error!r}") from None
    here = json.loads(json.dumps(description))
    before, now = (_pop_clip(side, path) for side in (found, here))
    if before and (conflict := before.conflict(now)):
        raise CheckpointError(
            f"{run} was trained on another CLIP ({conflict}); go on with that CLIP, "
            "or choose another run folder to train on this one"
        )
    differing = list(_differences(found, here))
    if differing:
        raise CheckpointError(
            f"{run} was trained as another stage: {'; '.join(differing)}; choose another run folder"
        )


def _pop_clip(description: dict[str, Any], path: Path) -> ClipIdentity | None:
    """Take out which CLIP the stage was trained on; runs older than the record do not say."""
    values = description.get("config", {}).pop("clip", None)
    return ClipIdentity.parse(values, source=str(path)) if values else None


def _differences(there: Any, here: Any, name: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from _differences(there.get(key), here.get(key), f"{name}.{key}".strip("."))
    elif there != here:
        yield f"{name} is {there} there, {here} now"


def state_folder(run: Path, step: int) -> Path:
    """Where the state after ``step`` steps lies."""
    return run / "state" / f"step-{step:08d}"


def _states(run: Path) -> list[Path]:
    return sorted(path for path in (run / "state").glob("step-*") if path.suffix != ".partial")
