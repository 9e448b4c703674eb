"""Bars on a terminal, which vanish; nothing anywhere else."""

import io
import re
from collections.abc import Callable, Generator

import pytest
import torch
from rich.console import Console

from unclip.cli.progress import watch
from unclip.types import Step


def sampling() -> Generator[Step, None, str]:
    """Two batches of two stages."""
    for _ in range(2):
        for stage, total in (("prior", 3), ("decoder", 2)):
            for index in range(total):
                nothing = torch.zeros(1, 1)
                yield Step(stage, index, total, nothing, nothing)
    return "result"


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], io.StringIO]:
    def install(terminal: bool) -> io.StringIO:
        file = io.StringIO()

        def make(**_: object) -> Console:
            return Console(file=file, force_terminal=terminal, force_interactive=terminal, width=80)

        monkeypatch.setattr("rich.console.Console", make)
        return file

    return install


def screen(written: str) -> list[str]:
    """What a terminal shows after ``written``: it knows lines, returns, cursor up, erase line."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|.|\n|\r", written):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif re.fullmatch(r"\x1b\[\d*A", token):
            row = max(0, row - int(token[2:-1] or 1))
        elif token == "\x1b[2K":
            lines[row] = ""
        elif not token.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def test_a_terminal_shows_a_bar_a_stage_and_is_left_as_it_was(
    console: Callable[[bool], io.StringIO],
) -> None:
    file = console(True)
    assert watch(sampling()) == "result"
    written = file.getvalue()
    assert "prior" in written
    assert "decoder" in written
    before_last = screen(written[: written.rindex("decoder") + 60])
    assert sum(line.startswith("prior") for line in before_last) == 1, "one bar for two batches"
    assert not any(screen(written))


def test_elsewhere_nothing_is_written(console: Callable[[bool], io.StringIO]) -> None:
    file = console(False)
    assert watch(sampling()) == "result"
    assert file.getvalue() == ""


def test_an_error_passes_and_leaves_the_terminal_tidy(
    console: Callable[[bool], io.StringIO],
) -> None:
    def failing() -> Generator[Step, None, None]:
        yield Step("prior", 0, 2, torch.zeros(1, 1), torch.zeros(1, 1))
        raise ValueError("no")

    file = console(True)
    with pytest.raises(ValueError, match="no"):
        watch(failing())
    assert not any(screen(file.getvalue()))


def test_what_yields_no_step_has_the_terminal_for_itself(
    console: Callable[[bool], io.StringIO],
) -> None:
    def downloading() -> Generator[Step, None, str]:
        yield from ()
        return "result"

    file = console(True)
    assert watch(downloading()) == "result"
    assert file.getvalue() == ""
