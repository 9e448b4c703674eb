"""Train a stage: `train` makes ready what the loop needs, for one process or several."""

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin
from torch import nn

from unclip.checkpoint import writing
from unclip.errors import OptionError, TrainingError
from unclip.runtime import choose_runtime, place
from unclip.storage.folders import write_json
from unclip.training.conditioner import FrozenClip, record_clip
from unclip.training.config import TrainingConfig
from unclip.training.loop import Loader, Preview, Training, TrainingReport
from unclip.training.lora import base_of, lower_frozen
from unclip.training.objectives import Objective, own_loss
from unclip.training.state import check_same_stage, latest_state
from unclip.training.watch import Stop
from unclip.types import Batch

Resume = Literal["auto", "always", "never"]


def train(
    stage: nn.Module,
    loader: Loader,
    config: TrainingConfig,
    run: Path | str,
    *,
    conditioner: Callable[[Batch], Batch] | None = None,
    objective: Objective = own_loss,
    preview: Preview | None = None,
    tracker: str | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    resume: Resume = "auto",
    device: str | None = None,
    compile: bool | None = None,
) -> TrainingReport:
    """Train ``stage`` in place, or continue to.

    Args:
        stage: any stage of the package; fine-tuning is passing one with loaded weights.
        loader: see `Loader`; every process brings its own.
        config: how to train.
        run: folder of this training. ``run/<stage.name>`` becomes the usable checkpoint,
            ``run/state`` holds what resuming needs, ``run/log.jsonl`` and ``run/previews`` tell.
        conditioner: fills in what the stage is conditioned on; see `FrozenClip`.
        objective: what to minimise, if not the stage's own loss.
        preview: called every ``preview_every`` steps, for ``run/previews``.
        tracker: an accelerate tracker, such as ``tensorboard``; files go to the run folder.
        max_minutes: stop, with a checkpoint, after so much wall time.
        max_steps: stop, with a checkpoint, after so many steps of this call.
        resume: ``auto`` continues what the folder holds, ``always`` insists on it, ``never``
            refuses a folder that holds a training.
        device: as in `choose_runtime`.
        compile: as in `choose_runtime`.

    Raises:
        TrainingError: nothing to resume, an unfit batch, a stage trained on another CLIP, or a
            loss that is not finite.
        CheckpointError: the run folder holds another stage, or damaged files.
    """
    if isinstance(conditioner, FrozenClip) and conditioner.needs & {"text", "image_embedding"}:
        record_clip(stage, conditioner.identity)
    runtime = choose_runtime(device, config.precision, compile)
    if runtime.device.type == "cuda" and runtime.device.index is not None:
        torch.cuda.set_device(runtime.device)  # which accelerate then takes
    accelerator = Accelerator(
        mixed_precision="no",  # the runtime decides, and autocasts around the objective
        cpu=runtime.device.type == "cpu",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        log_with=_known(tracker),
        project_dir=str(run),
    )
    _warn_if_alone(accelerator)
    stop = Stop(accelerator, max_minutes)
    runtime = replace(runtime, device=accelerator.device)
    place(stage, replace(runtime, compile=False), training=True)
    lower_frozen(stage, runtime.dtype)
    if config.gradient_checkpointing:
        _checkpoint_gradients(stage)
    state = _open_run(accelerator, Path(run), stage, config, resume)
    training = Training(
        stage, config, Path(run), accelerator, runtime, state, conditioner, objective, preview
    )
    with stop.listening(), _tracking(accelerator, tracker, stage, config), closing(training):
        return training.loop(loader, stop, max_steps)


def _open_run(
    accelerator: Accelerator, run: Path, stage: Any, config: TrainingConfig, resume: Resume
) -> Path | None:
    """Prepare the run folder; return the state to continue from, if any."""
    state = latest_state(run)
    if state is None and resume == "always":
        raise TrainingError(f"{run} holds no training to resume")
    if state is not None and resume == "never":
        raise TrainingError(f"{run} holds a training already; resume it or choose another folder")
    description = {"name": stage.name, "config": stage.config.model_dump(mode="json")}
    if base := base_of(stage):
        how = stage.adapter_config
        description["adapter"] = {"on": base.fingerprint, "rank": how.r, "alpha": how.lora_alpha}
    if state is not None:
        check_same_stage(run, description)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        training = config.model_dump(mode="json")
        with writing(run):
            run.mkdir(parents=True, exist_ok=True)
            write_json(run / "config.json", {"training": training, "stage": description})
    return state


def _warn_if_alone(accelerator: Accelerator) -> None:
    """`accelerate launch --cpu --num_processes 2` names a meeting place, and starts one process."""
    alone = accelerator.num_processes == 1 and "WORLD_SIZE" not in os.environ
    if alone and "MASTER_ADDR" in os.environ and "ACCELERATE_USE_CPU" in os.environ:
        warnings.warn(
            "accelerate launch was asked for several processes but started one, as it does on CPUs "
            "without mpirun; use torchrun --nproc-per-node 2 -m unclip train ...",
            stacklevel=3,
        )


def _known(tracker: str | None) -> str | None:
    available = [str(name) for name in get_available_trackers()]
    if tracker is None or tracker in available:
        return tracker
    raise OptionError(f"tracker {tracker!r} is not installed; available: {', '.join(available)}")


@contextmanager
def _tracking(
    accelerator: Accelerator, tracker: str | None, stage: Any, config: TrainingConfig
) -> Iterator[None]:
    if tracker is None:
        yield
        return
    flat = _flat({"training": config.model_dump(), "stage": stage.config.model_dump()})
    accelerator.init_trackers(f"{stage.name}-{tracker}", config=flat)
    try:
        yield
    finally:
        accelerator.end_training()


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values under dotted names; what is no number, text or switch, as text."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            plain = isinstance(value, bool | int | float | str)
            flat[prefix + name] = value if plain else str(value)
    return flat


def _checkpoint_gradients(stage: nn.Module) -> None:
    able = [module for module in stage.modules() if hasattr(module, "gradient_checkpointing")]
    if not able:
        raise OptionError(f"gradient_checkpointing: no network of the {stage.name} supports it")
    for module in able:
        module.gradient_checkpointing = True  # type: ignore[assignment]
