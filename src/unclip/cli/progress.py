"""Sampling steps as live bars on the standard error, one bar a stage; elsewhere nothing."""

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import TaskID

    from unclip.types import Step

R = TypeVar("R")


def watch(sampling: "Generator[Step, None, R]") -> R:
    """Run ``sampling`` to its end and return its result, under bars that vanish afterwards."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

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
    with Progress(*columns, console=console, transient=True) as progress:
        bars: dict[str, TaskID] = {}
        while True:
            try:
                step = next(sampling)
            except StopIteration as stop:
                return stop.value
            if step.stage not in bars:
                bars[step.stage] = progress.add_task(step.stage, total=step.total)
            elif step.index == 0:  # the next batch
                progress.reset(bars[step.stage], total=step.total)
            progress.update(bars[step.stage], completed=step.index + 1)
