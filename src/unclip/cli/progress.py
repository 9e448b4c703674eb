"""Steps as live bars on the standard error, one bar a stage; elsewhere nothing."""

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID

R = TypeVar("R")


class Progress(Protocol):
    """What a bar shows: a step of a sampler, or a part of a model that is converted."""

    @property
    def stage(self) -> str:
        """What the bar is called."""

    @property
    def index(self) -> int:
        """From 0."""

    @property
    def total(self) -> int:
        """Steps of the stage."""


def watch(sampling: "Generator[Progress, None, R]") -> R:
    """Run ``sampling`` to its end and return its result, under bars that vanish afterwards."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from unclip.types import finish

    console = Console(stderr=True)
    if not console.is_interactive:
        return finish(sampling)
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    try:
        step = next(sampling)  # what it downloads before shows bars of its own
        with Bars(*columns, console=console, transient=True) as bars:
            while True:
                if step.stage not in tasks:
                    tasks[step.stage] = bars.add_task(step.stage, total=step.total)
                elif step.index == 0:  # the next batch
                    bars.reset(tasks[step.stage], total=step.total)
                bars.update(tasks[step.stage], completed=step.index + 1)
                step = next(sampling)
    except StopIteration as stop:
        return stop.value


def found(model: str) -> Path:
    """The folder of a model, as `unclip.loading.find`; a bar while a published one is converted."""
    from unclip.loading import finding

    return watch(finding(model))
