"""``unclip sweep``: a labelled grid over two options."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unclip.cli.assignments import assignments_of
from unclip.cli.manipulate import Flat
from unclip.cli.output import Studio
from unclip.errors import OptionError
from unclip.manipulation.options import Sweep
from unclip.options import DrawingBetween

_STUDIO, _OPTIONS = Studio(), DrawingBetween()


def sweep(
    *items: str,
    x: str,
    y: str | None = None,
    command: str = "generate",
    assignments: Annotated[list[str] | None, Parameter(name="--set")] = None,
    options: Annotated[DrawingBetween, Flat] = _OPTIONS,
    studio: Studio = _STUDIO,
) -> None:
    """Draw one image for each pair of values of two options, side by side.

    For example:

        unclip sweep "a red apple" --x decoder.guidance=1,2,4 --y prior.steps=4,16 -o grid.png
        unclip sweep cat.png --command vary --x eta=0,0.5,1 --y seed=0,1,2 -o grid.png

    Args:
        items: What the command takes: a prompt, or images.
        x: The option that changes from left to right, and its values: `decoder.steps=8,16,32`.
        y: The option that changes from top to bottom, and its values.
        command: generate, vary, interpolate, mix, edit, inpaint, upscale, reconstruct or decode.
        assignments: An option of the command's own for all images, such as `fit=pad`; repeatable.
    """
    from unclip.manipulation.sweeps import assigned, sweep

    x_name, x_values = _axis(x, "--x")
    y_name, y_values = _axis(y, "--y") if y else ("", ())
    how = Sweep.parse(
        {
            "command": command,
            "how": assigned({}, assignments_of(assignments, "fit=pad")),
            "x": x_name,
            "x_values": x_values,
            "y": y_name,
            "y_values": y_values,
        },
        source="sweep",
    )
    making = sweep(studio.load(), *items, how=how, options=options.asked())
    studio.run(making, f"{Path(items[0]).stem if items else ''} sweep", 1)


def _axis(words: str, name: str) -> tuple[str, tuple[str, ...]]:
    option, equals, values = words.partition("=")
    found = tuple(value.strip() for value in values.split(",") if value.strip())
    if not (option and equals and found):
        raise OptionError(f"{name} {words}: write OPTION=VALUE,VALUE,…")
    return option.strip(), found
