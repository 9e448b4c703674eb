"""One picture for each pair of values of two options, on a labelled grid."""

import warnings
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple

from PIL import Image

from unclip.config import Config, merged, read_value
from unclip.errors import OptionError
from unclip.images import labelled_grid
from unclip.manipulation.commands import COMMANDS
from unclip.manipulation.inputs import Input, Item, Picture, read_item
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Inpaint, Sweep
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.types import Step

ONE = ("images", "batch", "frames")
"""Options that say how many pictures there are, of which a cell shows the last, or how many are
computed together."""


class Cell(NamedTuple):
    """What a picture of the grid is drawn with."""

    how: Config | None
    """Of the manipulation; None where a prompt is drawn."""
    options: GenerateOptions


def sweep(
    model: UnCLIP,
    *items: Picture | Input,
    how: Sweep,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw the grid: the last picture that ``how.command`` makes with each pair of values.

    Raises:
        OptionError: no such command or option, a value it cannot have, or an option that has no
            effect on what is drawn.
    """
    asked = options or GenerateOptions()
    found = tuple(read_item(item) for item in items)
    cells = [
        [
            _cell(model, how, asked, {how.x: x, **({how.y: y} if how.y else {})})
            for x in how.x_values
        ]
        for y in (how.y_values or ("",))
    ]
    _check_effects(model, how, found, asked, [cell for row in cells for cell in row])
    rows = []
    for row in cells:
        pictures = []
        for cell in row:
            drawn = yield from _draw(model, how.command, found, cell)
            pictures.append(drawn)
        rows.append(pictures)
    _warn_of_sameness(how, rows)
    across = [f"{how.x} {value}" for value in how.x_values]
    grid = labelled_grid(rows, across, [f"{how.y} {value}" for value in how.y_values])
    return Job("sweep", found, how, asked).of([grid], ["grid"], model)


def _cell(model: UnCLIP, how: Sweep, asked: GenerateOptions, values: dict[str, str]) -> Cell:
    """The options of one cell, checked before anything is drawn."""
    kind = _how_of(how.command)
    mine = {path: text for path, text in values.items() if _names(kind, path)}
    own = assigned(how.how, mine)
    shared = assigned(
        asked.model_dump(exclude_unset=True) | {"images": 1},
        {path: text for path, text in values.items() if path not in mine},
    )
    where = ", ".join(f"{path} {text}" for path, text in values.items())
    options = GenerateOptions.parse(shared, source=where)
    model.complete(options)
    return Cell(None if kind is None else kind.parse(own, source=where), options)


def _check_effects(
    model: UnCLIP, how: Sweep, items: Sequence[Item], asked: GenerateOptions, cells: Sequence[Cell]
) -> None:
    """Refuse what is asked for and changes no picture."""
    for path in sorted(asked.model_fields_set - set(ONE)):
        if not _known(how.command, path):
            raise OptionError(f"{path} has no effect: {how.command} does not use it")
    for path in filter(None, (how.x, how.y)):
        causes = [_idle(model, how.command, items, cell, path) for cell in cells]
        if all(causes):
            raise OptionError(f"{path} has no effect: {causes[0]}; sweep over another option")


def _idle(model: UnCLIP, command: str, items: Sequence[Item], cell: Cell, path: str) -> str:
    """Why an option changes nothing in a cell; empty if it does."""
    name, _, rest = path.partition(".")
    if name in ONE:
        return "each place in the grid holds one picture"
    if not _known(command, name) and not _names(_how_of(command), path):
        return f"{command} does not use it"
    if name in ("prior", "candidates") and not _asks_prior(items, cell.how):
        return "there is no prompt that the prior would be asked for"
    sizes = [str(size) for size, _ in model.refiners(model.complete(cell.options))]
    if name == "tile" and not sizes:
        return "no upsampler works"
    if name == "upsampler" and rest.split(".")[0] not in sizes:
        return "this upsampler does not work"
    return ""


def _known(command: str, name: str) -> bool:
    """Whether one of `GenerateOptions` acts on what a command draws."""
    kind = GenerateOptions if command == "generate" else COMMANDS[command].options
    return name in kind.model_fields


def _asks_prior(items: Sequence[Item], how: Config | None) -> bool:
    if isinstance(how, Inpaint):
        return bool(how.prompt.strip()) and how.image_weight != 1
    return any(isinstance(item, str) for item in items)


def _warn_of_sameness(how: Sweep, rows: Sequence[Sequence[Image.Image]]) -> None:
    """Say of an option that what else is set has left it without effect."""
    columns = list(zip(*rows, strict=True))
    for path, lines in ((how.x, rows), (how.y, columns)):
        if len(lines[0]) > 1 and all(picture == line[0] for line in lines for picture in line):
            warnings.warn(f"{path} has no effect here: its pictures are the same", stacklevel=2)


def _how_of(command: str) -> type[Config] | None:
    if command == "generate":
        return None
    if command not in COMMANDS:
        known = ", ".join(["generate", *COMMANDS])
        raise OptionError(f"there is no {command!r} to sweep; choose from {known}")
    return COMMANDS[command].how


def _draw(
    model: UnCLIP, command: str, items: Sequence[Item], cell: Cell
) -> Generator[Step, None, Image.Image]:
    if cell.how is None:
        prompts = [item for item in items if isinstance(item, str)]
        if len(items) != 1 or len(prompts) != 1:
            raise OptionError("give one prompt to sweep over")
        drawn = yield from model.stream(prompts, cell.options)
        return drawn[0].image
    made = yield from COMMANDS[command].make(model, *items, how=cell.how, options=cell.options)
    return made[-1].image


def assigned(values: Mapping[str, Any], assignments: Mapping[str, str]) -> dict[str, Any]:
    """Put assignments such as ``{"decoder.steps": "16"}`` over nested values; JSON is read."""
    result = dict(values)
    for path, text in assignments.items():
        inner: Any = read_value(text)
        for name in reversed(path.split(".")):
            inner = {name: inner}
        result = merged(result, inner)
    return result


def _names(kind: type[Config] | None, path: str) -> bool:
    return kind is not None and path.split(".")[0] in kind.model_fields
