"""What ends a training early: a loss or gradient that is not finite, a signal, the time budget."""

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from unclip.errors import TrainingError
from unclip.storage.folders import write_json
from unclip.types import Batch, Losses

Ending = Literal["done", "signal", "time"]


class FiniteWatch:
    """Finds the step and the samples whose loss or gradient is not finite.

    Verdicts stay on the device until `check`, so that an accelerator need not be waited for at
    every step; the keys are remembered meanwhile.
    """

    def __init__(self, accelerator: Accelerator, run: Path) -> None:
        self._accelerator = accelerator
        self._run = run
        self._noted: list[tuple[int, tuple[str, ...], dict[str, Tensor]]] = []
        self._verdicts: list[Tensor] = []

    def note(self, step: int, batch: Batch, losses: Losses) -> None:
        """Remember the losses of a (micro-)batch of step ``step``."""
        values = {name: value.detach() for name, value in losses.items()}
        self._noted.append((step, batch.keys, values))
        self._verdicts.append(torch.isfinite(values["loss"]))

    def note_gradient(self, norm: Tensor) -> None:
        """Remember the gradient's norm of the step whose last part was noted.

        A finite loss can have a gradient that is not, and one such step spoils all weights.
        """
        self._noted[-1][2]["gradient_norm"] = norm.detach()
        self._verdicts[-1] = self._verdicts[-1] & torch.isfinite(norm).to(self._verdicts[-1].device)

    def check(self) -> None:
        """Look at what was noted since the last look.

        Raises:
            TrainingError: naming the first step that was not finite and its samples.
        """
        if not self._noted:
            return
        verdicts = torch.stack(self._verdicts)
        everywhere = self._accelerator.reduce(verdicts.float(), "mean")
        noted, self._noted, self._verdicts = self._noted, [], []
        if (everywhere == 1).all():
            return
        first = int((everywhere < 1).nonzero()[0])
        step, keys, losses = noted[first]
        mine = [] if bool(verdicts[first]) else [(keys, {k: float(v) for k, v in losses.items()})]
        found = gather_object(mine)
        self._fail(step, [key for keys, _ in found for key in keys], found[0][1])

    def _fail(self, step: int, keys: list[str], losses: dict[str, float]) -> None:
        path = self._run / "not-finite.json"
        if self._accelerator.is_main_process:
            shown = {name: str(value) for name, value in losses.items()}
            write_json(path, {"step": step, "losses": shown, "keys": keys})
        bad = [f"{name} {value}" for name, value in losses.items() if not math.isfinite(value)]
        more = f" and {len(keys) - 4} more (all in {path})" if len(keys) > 4 else ""
        raise TrainingError(
            f"step {step}: {', '.join(bad)} in the batch of {', '.join(keys[:4])}{more}; "
            "lower the learning rate, raise the warm-up or look at these samples, "
            "then resume from the last checkpoint"
        )


class Stop:
    """The wish to stop: SIGTERM, SIGINT (a second one interrupts at once) or spent time.

    Args:
        max_minutes: wall time from now; a paused process spends it too.
    """

    def __init__(self, accelerator: Accelerator, max_minutes: float | None) -> None:
        self._accelerator = accelerator
        self._deadline = math.inf if max_minutes is None else time.monotonic() + 60 * max_minutes
        self._signalled = False

    @property
    def seconds_left(self) -> float:
        """Of the time budget; infinite without one."""
        return self._deadline - time.monotonic()

    def agreed(self) -> Ending | None:
        """Return why all processes stop now, if they do; all must ask at the same step."""
        wish = 2 if self._signalled else 1 if self.seconds_left <= 0 else 0
        if self._accelerator.num_processes > 1:
            wishes = torch.tensor([wish], device=self._accelerator.device)
            wish = int(self._accelerator.gather(wishes).max())
        return {0: None, 1: "time", 2: "signal"}[wish]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals meanwhile; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signalled = True
