"""One picture for each pair of values of two options, on a labelled grid."""

import json
from collections.abc import Generator, Mapping
from typing import Any

from PIL import Image

from unclip.config import Config, merged
from unclip.errors import OptionError
from unclip.images import labelled_grid
from unclip.manipulation.commands import COMMANDS
from unclip.manipulation.inputs import Input, Picture, read_item
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Sweep
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.types import Step


def sweep(
    model: UnCLIP,
    *items: Picture | Input,
    how: Sweep,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw the grid: the last picture that ``how.command`` makes with each pair of values.

    Raises:
        OptionError: no such command or option, or a value it cannot have.
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
    rows = []
    for row in cells:
        pictures = []
        for cell_how, cell_options in row:
            drawn = yield from _draw(model, how.command, found, cell_how, cell_options)
            pictures.append(drawn)
        rows.append(pictures)
    across = [f"{how.x} {value}" for value in how.x_values]
    grid = labelled_grid(rows, across, [f"{how.y} {value}" for value in how.y_values])
    return Job("sweep", found, how, asked).of([grid], ["grid"], model)


def _cell(
    model: UnCLIP, how: Sweep, asked: GenerateOptions, values: dict[str, str]
) -> tuple[Config | None, GenerateOptions]:
    """The options of one cell, checked before anything is drawn."""
    kind = _how_of(how.command)
    mine = {path: text for path, text in values.items() if kind and _names(kind, path)}
    own = assigned(how.how, mine)
    shared = assigned(
        asked.model_dump(exclude_unset=True) | {"images": 1},
        {path: text for path, text in values.items() if path not in mine},
    )
    where = ", ".join(f"{path} {text}" for path, text in values.items())
    options = GenerateOptions.parse(shared, source=where)
    model.complete(options)
    return (None if kind is None else kind.parse(own, source=where)), options


def _how_of(command: str) -> type[Config] | None:
    if command == "generate":
        return None
    if command not in COMMANDS:
        known = ", ".join(["generate", *COMMANDS])
        raise OptionError(f"there is no {command!r} to sweep; choose from {known}")
    return COMMANDS[command].how


def _draw(
    model: UnCLIP,
    command: str,
    items: tuple[Any, ...],
    how: Config | None,
    options: GenerateOptions,
) -> Generator[Step, None, Image.Image]:
    if how is None:
        prompts = [item for item in items if isinstance(item, str)]
        if len(items) != 1 or len(prompts) != 1:
            raise OptionError("give one prompt to sweep over")
        drawn = yield from model.stream(prompts, options)
        return drawn[0].image
    made = yield from COMMANDS[command].make(model, *items, how=how, options=options)
    return made[-1].image


def assigned(values: Mapping[str, Any], assignments: Mapping[str, str]) -> dict[str, Any]:
    """Put assignments such as ``{"decoder.steps": "16"}`` over nested values; JSON is read."""
    result = dict(values)
    for path, text in assignments.items():
        inner: Any = _read(text)
        for name in reversed(path.split(".")):
            inner = {name: inner}
        result = merged(result, inner)
    return result


def _names(kind: type[Config], path: str) -> bool:
    return path.split(".")[0] in kind.model_fields


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
