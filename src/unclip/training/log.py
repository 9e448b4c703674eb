"""What a training tells: log.jsonl, a bar or plain lines, and means of losses without waiting."""

import json
import os
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor

from unclip.types import Losses

SECONDS_BETWEEN_LINES = 10.0


class LogFile:
    """``log.jsonl``: one line per logged step, none twice, also after a resume.

    Args:
        path: the file; it is created if missing.
        step: lines after this step are dropped, as are lines cut by a kill.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in read_log(path) if line["step"] <= step]
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(partial, path)
        self._file = path.open("a", buffering=1)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line."""
        self._file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read the complete lines of a ``log.jsonl``; a missing file has none."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


class Mean:
    """Running means of losses; sums stay on the device until they are read.

    Args:
        pending: the sums saved with a checkpoint, so that a resumed training logs the same.
    """

    def __init__(self, pending: Mapping[str, float] | None = None) -> None:
        sums = dict(pending or {})
        self._count = int(sums.pop("count", 0))
        self._sums: dict[str, Tensor | float] = dict(sums)

    def add(self, losses: Losses, share: float) -> None:
        """Add ``share`` of the losses of a step."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.detach().float() * share

    def step(self) -> None:
        """End a step."""
        self._count += 1

    def pending(self) -> dict[str, float]:
        """Sums so far, for a checkpoint."""
        return {
            "count": float(self._count),
            **{name: float(value) for name, value in self._sums.items()},
        }

    def take(self) -> dict[str, float]:
        """Return the means and start again."""
        means = {name: float(value) / max(1, self._count) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


class Pace:
    """Images per second over recent steps, as a median: pauses and checkpoints do not count."""

    def __init__(self, window: int = 20) -> None:
        self._seconds: deque[float] = deque(maxlen=window)
        self._last = time.monotonic()

    def tick(self, images: int) -> None:
        """Note that ``images`` more images are done."""
        now = time.monotonic()
        self._seconds.append((now - self._last) / images)
        self._last = now

    def skip(self) -> None:
        """Leave out the time since the last tick, spent on something else."""
        self._last = time.monotonic()

    @property
    def images_per_second(self) -> float:
        """0 while unknown."""
        return 1 / max(1e-9, statistics.median(self._seconds)) if self._seconds else 0.0


class Display:
    """Where progress is shown. This one shows nothing: for every process but the first."""

    def update(self, step: int, record: Mapping[str, Any] | None, seconds_left: float) -> None:
        """Show that ``step`` steps are done; ``record`` is what was logged just now, if it was."""

    def note(self, text: str) -> None:
        """Show a line."""

    def close(self) -> None:
        """Leave the terminal tidy."""


class Bar(Display):
    """A live bar, for terminals."""

    def __init__(self, console: Console, title: str, steps: int, step: int) -> None:
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task(title, total=steps, completed=step, text="")
        self._record: Mapping[str, Any] | None = None
        self._progress.start()

    def update(self, step: int, record: Mapping[str, Any] | None, seconds_left: float) -> None:
        """Move the bar."""
        self._record = record or self._record
        text = describe(self._record, seconds_left) if self._record else ""
        self._progress.update(self._task, completed=step, text=text)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Stop drawing."""
        self._progress.stop()


class Lines(Display):
    """Plain lines, for log files: at most one in ten seconds, and the last."""

    def __init__(self, console: Console, title: str, steps: int) -> None:
        self._console, self._title, self._steps = console, title, steps
        self._shown = -SECONDS_BETWEEN_LINES

    def update(self, step: int, record: Mapping[str, Any] | None, seconds_left: float) -> None:
        """Print what was logged, unless something was printed just now."""
        due = time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES or step >= self._steps
        if record and due:
            self._shown = time.monotonic()
            self.note(f"{step}/{self._steps} {describe(record, seconds_left)}")

    def note(self, text: str) -> None:
        """Print a line."""
        line = f"{time.strftime('%H:%M:%S')} {self._title} {text}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def open_display(title: str, steps: int, step: int, main: bool) -> Display:
    """Open a bar on a terminal, lines elsewhere, nothing in processes other than the first."""
    if not main:
        return Display()
    console = Console(stderr=True)
    return Bar(console, title, steps, step) if console.is_terminal else Lines(console, title, steps)


def describe(record: Mapping[str, Any], seconds_left: float) -> str:
    """One logged record as text: loss, its parts, speed, time left."""
    losses = "  ".join(f"{name} {value:.4g}" for name, value in record["losses"].items())
    speed = f"{record['images_per_second']:.4g} images/s"
    return f"{losses}  lr {record['lr']:.2g}  {speed}  {clock(seconds_left)} left"


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03``."""
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
