"""The one training loop, for every stage: it knows batches, losses and weights, no paper.

Batch ``k`` of the loader is optimiser step ``k``, and random numbers are derived from seed, step
and sample: a resumed training continues bit for bit without saved generators.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from PIL.Image import Image
from torch import nn

from unclip.checkpoint import save_stage, writing
from unclip.errors import TrainingError
from unclip.randomness import Randomness, derive_seed
from unclip.runtime import Runtime, place
from unclip.training.config import TrainingConfig
from unclip.training.ema import Ema, ema_decay
from unclip.training.log import LogFile, Mean, Pace, open_display
from unclip.training.lora import base_of, save_adapter
from unclip.training.objectives import Objective
from unclip.training.optimizer import (
    build_optimizer,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
)
from unclip.training.sam import climbed
from unclip.training.state import (
    EMA,
    OPTIMIZER,
    RAW,
    Progress,
    chosen_tensors,
    prune_states,
    read_progress,
    read_tensors,
    restore_module,
    save_state,
    trained_names,
)
from unclip.training.watch import Ending, FiniteWatch, Stop
from unclip.types import Batch, Losses, TextFeatures

STEPS_BETWEEN_LOOKS = 10
"""How often an accelerator is waited for, to look at losses, signals and the clock."""


@runtime_checkable
class Loader(Protocol):
    """Where batches come from."""

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield this process's slice of batch ``start`` of the global stream, and all after it."""


Preview = Callable[[Any], Image]
"""Draws samples of a stage (it gets averaged weights, evaluation mode, autocast) as one picture."""


@dataclass(frozen=True)
class TrainingReport:
    """How a training ended."""

    ending: Ending
    step: int
    images: int
    losses: dict[str, float]
    """As last logged."""
    folder: Path
    """The usable checkpoint, with averaged weights; of a stage with an adapter, the adapter."""


class Training:
    """A training in progress: the loop over steps, and what happens between them."""

    def __init__(
        self,
        stage: nn.Module,
        config: TrainingConfig,
        run: Path,
        accelerator: Accelerator,
        runtime: Runtime,
        state: Path | None,
        conditioner: Callable[[Batch], Batch] | None,
        objective: Objective,
        preview: Preview | None,
    ) -> None:
        self.stage, self.config, self.run = stage, config, run
        self.accelerator, self.runtime = accelerator, runtime
        self.conditioner, self.objective, self.preview = conditioner, objective, preview
        self.name = str(stage.name)
        main = accelerator.is_main_process
        self.trained = trained_names(stage)
        if state:
            restore_module(stage, state / RAW, self.trained)
        stage.train()
        self.ema = Ema(stage, averaging=config.half_life > 0) if main else None
        self.optimizer = build_optimizer(stage, config)
        self.progress = self._restore(state) if state else Progress()
        if runtime.compile:
            place(stage, runtime, training=True)
        self.model = accelerator.prepare(stage)
        self.look_every = 1 if accelerator.device.type == "cpu" else STEPS_BETWEEN_LOOKS
        self.watch = FiniteWatch(accelerator, run)
        self.mean, self.pace = Mean(self.progress.pending), Pace()
        self.losses: dict[str, float] = {}
        self.norm = torch.tensor(0.0)
        self.started = time.monotonic() - self.progress.seconds
        self.log_file = LogFile(run / "log.jsonl", self.progress.step) if main else None
        self.display = open_display(self.name, config.steps, self.progress.step, main)
        if state:
            lost = self.progress.rewarmed_at == self.progress.step
            note = "; the optimiser's state is missing, warming up again" if lost else ""
            self.display.note(f"resumed after step {self.progress.step}{note}")

    def _restore(self, state: Path) -> Progress:
        """Put back what the stage itself does not hold."""
        progress = read_progress(state)
        if self.ema and self.ema.averaging:
            averaged = state / EMA if (state / EMA).exists() else state / RAW
            restore_module(self.ema.stage, averaged, self.trained)
        if (state / OPTIMIZER).exists():
            restore_optimizer(self.stage, self.optimizer, read_tensors(state / OPTIMIZER))
        else:
            progress.rewarmed_at = progress.step
        return progress

    def loop(self, loader: Loader, stop: Stop, max_steps: int | None) -> TrainingReport:
        """Train until the last step, or until something else ends it; save."""
        last = self.config.steps
        if max_steps is not None:
            last = min(last, self.progress.step + max_steps)
        ending: Ending | None = None
        batches = loader.batches(self.progress.step)
        try:
            self.pace.skip()
            while self.progress.step < last and ending is None:
                self._step(next(batches))
                ending = self._after_step(stop)
        finally:
            if hasattr(batches, "close"):
                batches.close()
        self._save()
        if ending:
            self.display.note(f"stopped after step {self.progress.step} ({ending}); saved")
        return TrainingReport(
            ending or "done", self.progress.step, self.progress.images, self.losses, self.folder
        )

    @property
    def folder(self) -> Path:
        """The usable checkpoint: the stage, or the adapter that is all that is trained of it."""
        return self.run / ("adapter" if base_of(self.stage) else self.name)

    def _step(self, batch: Batch) -> None:
        """One optimiser step."""
        config, step = self.config, self.progress.step
        for part, first, last in self._parts(batch):
            self._accumulate(part, first, synchronise=last)
        bound = config.clip_norm or math.inf
        self.norm = self.accelerator.clip_grad_norm_(self.stage.parameters(), bound)
        self.watch.note_gradient(self.norm)
        if self._is_look(step):
            self.watch.check()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step, self.progress.rewarmed_at)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if after_step := getattr(self.stage, "after_step", None):
            after_step()
        self.mean.step()
        self.progress.step += 1
        self.progress.images += config.batch
        if self.ema:
            images, seen = config.batch, self.progress.images
            decay = ema_decay(images, seen, config.half_life, config.ema_ramp)
            self.ema.update(self.stage, decay)

    def _accumulate(self, part: Batch, first: int, synchronise: bool) -> None:
        """Add the gradient of one part of the batch."""
        device = self.accelerator.device
        part = part.to(device)
        if self.conditioner:
            part = self.conditioner(part).to(device)
        config, step = self.config, self.progress.step

        def losses_of(model: nn.Module) -> Losses:
            # Dropout layers alone use torch's global generator; so they resume, too.
            torch.manual_seed(derive_seed(config.seed, "dropout", step, first))
            randomness = Randomness.for_step(config.seed, step, first, len(part), device)
            with self.runtime.autocast():
                return self.objective(model, part, randomness)

        uphill = climbed(
            self.stage.parameters(), lambda: losses_of(self.stage)["loss"], config.sam_radius
        )
        silence = nullcontext() if synchronise else self.accelerator.no_sync(self.model)
        with uphill, silence:
            losses = losses_of(self.model)
            self.accelerator.backward(losses["loss"] / config.accumulate)
        self.mean.add(losses, 1 / config.accumulate)
        self.watch.note(step + 1, part, losses)

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, int, bool]]:
        """Cut this process's share into equal parts.

        Each comes with the place of its first sample in the global batch, and whether it is the
        last.
        """
        processes, config = self.accelerator.num_processes, self.config
        share = len(batch)
        if share * processes != config.batch:
            raise TrainingError(
                f"the loader gives {share} images to each of {processes} process(es), "
                f"the configured batch is {config.batch}; make them agree"
            )
        size, rest = divmod(share, config.accumulate)
        if rest:
            raise TrainingError(f"a batch of {share} cannot be cut into {config.accumulate} parts")
        offset = self.accelerator.process_index * share
        for start in range(0, share, size):
            yield _cut(batch, start, start + size), offset + start, start + size == share

    def _after_step(self, stop: Stop) -> Ending | None:
        """Log, draw and save where due; return what ends the training now, if anything does."""
        config, step = self.config, self.progress.step
        looked = self._is_look(step - 1)
        if looked:
            self.pace.tick(config.batch * self.look_every)
        record = None
        if step % config.log_every == 0 or step == config.steps:
            record = self._log()
        left = (config.steps - step) * config.batch / max(1e-9, self.pace.images_per_second)
        self.display.update(step, record, min(left, stop.seconds_left))
        if self.preview and config.preview_every and step % config.preview_every == 0:
            self._draw()
        if step % config.save_every == 0:
            self._save()
        return stop.agreed() if looked else None

    def _is_look(self, step: int) -> bool:
        return (step + 1) % self.look_every == 0

    def _log(self) -> dict[str, Any] | None:
        """Write what happened since the last logged step."""
        means = self.mean.take()
        values = torch.tensor(list(means.values()), device=self.accelerator.device)
        values = self.accelerator.reduce(values, "mean")
        self.losses = dict(zip(means, values.tolist(), strict=True))
        if self.log_file is None:
            return None
        record = {
            "step": self.progress.step,
            "images": self.progress.images,
            "losses": self.losses,
            "lr": self.optimizer.param_groups[0]["lr"],
            "gradient_norm": float(self.norm),
            "images_per_second": round(self.pace.images_per_second, 3),
            "seconds": round(time.monotonic() - self.started, 3),
        }
        with writing(self.run):
            self.log_file.append(record)
        others = ("lr", "gradient_norm", "images_per_second")
        self.accelerator.log(
            self.losses | {name: record[name] for name in others}, step=self.progress.step
        )
        return record

    def _draw(self) -> None:
        """Let the caller draw samples with the averaged weights."""
        if self.ema and self.preview:
            folder = self.run / "previews"
            with self.runtime.autocast():  # frozen weights may be of its dtype
                picture = self.preview(self.ema.stage)
            try:
                folder.mkdir(exist_ok=True)
                picture.save(folder / f"{self.progress.step:06d}.png")
            except OSError as error:
                self.display.note(f"{folder}: no preview: {error.strerror or error}")
            pixels = np.asarray(picture.convert("RGB"))[None]
            for tracker in self.accelerator.trackers:
                if hasattr(tracker, "log_images"):
                    layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                    tracker.log_images({"samples": pixels}, step=self.progress.step, **layout)
        self.accelerator.wait_for_everyone()
        self.pace.skip()

    def _save(self) -> None:
        """Save the state to resume from, then the usable checkpoint."""
        self.watch.check()
        pending = self.mean.pending()
        if self.ema:
            seconds = time.monotonic() - self.started
            self.progress = replace(self.progress, seconds=seconds, pending=pending)
            tensors = {
                RAW: chosen_tensors(self.stage, self.trained),
                OPTIMIZER: optimizer_tensors(self.stage, self.optimizer),
            }
            if self.ema.averaging:
                tensors[EMA] = chosen_tensors(self.ema.stage, self.trained)
            with writing(self.run):
                save_state(self.run, self.progress, tensors)
            save = save_adapter if base_of(self.stage) else save_stage
            save(self.ema.stage, self.folder)
            prune_states(self.run, self.config.keep)
        self.accelerator.wait_for_everyone()
        self.pace.skip()

    def close(self) -> None:
        """Close files and leave the terminal tidy."""
        self.display.close()
        if self.log_file:
            self.log_file.close()


def _cut(batch: Batch, start: int, stop: int) -> Batch:
    """Samples ``start`` to ``stop`` of a batch."""

    def part(value: Any) -> Any:
        if isinstance(value, TextFeatures):
            return value.take(torch.arange(start, stop))
        return None if value is None else value[start:stop]

    return Batch(**{item.name: part(getattr(batch, item.name)) for item in fields(batch)})
