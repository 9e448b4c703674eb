"""Sampling steps as live bars on the standard error, one bar a stage."""

from collections.abc import Generator
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from unclip.types import Step

R = TypeVar("R")


def watch(sampling: Generator[Step, None, R], title: str) -> R:
    """Run ``sampling`` to its end under a bar per stage and return its result."""
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        console.print(title, style="dim", highlight=False)
        bars: dict[str, TaskID] = {}
        while True:
            try:
                step = next(sampling)
            except StopIteration as stop:
                return stop.value
            if step.stage not in bars or step.index == 0:
                bars[step.stage] = progress.add_task(step.stage, total=step.total)
            progress.update(bars[step.stage], completed=step.index + 1)
