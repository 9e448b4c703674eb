"""Draw the sheet of docs/manipulations.md with the shipped model: first seeds, not picked."""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

import unclip
from unclip import GenerateOptions, UnCLIP
from unclip.diffusion.options import SamplingOptions
from unclip.images import contact_sheet, resize
from unclip.manipulation import (
    Edit,
    Inpaint,
    Interpolate,
    Vary,
    edit,
    inpaint,
    interpolate,
    mix,
    reconstruct,
    vary,
)
from unclip.manipulation.made import Making
from unclip.types import finish

ONE, OTHER = "a rocket", "a castle"
FRUIT, GREEN = "a red apple", "a green apple"
COLUMNS, CELL = 6, 112

Row = list[tuple[Image.Image, str]]


def rows(model: UnCLIP, size: int) -> list[Row]:
    """One row a manipulation or two, the pictures it begins with on its left."""
    options = GenerateOptions(size=size, batch=COLUMNS)
    two, three, five = (options.model_copy(update={"images": count}) for count in (2, 3, 5))
    walk = options.model_copy(update={"decoder": SamplingOptions(steps=62)})
    drawn = model.generate([ONE, OTHER, FRUIT], options)
    one, other, fruit = (picture.image for picture in drawn)
    box = (size // 2, 0, size, size)

    kept = vary(model, one, how=Vary(eta=0.5), options=walk.model_copy(update={"images": 2}))
    between = interpolate(model, one, other, how=Interpolate(frames=COLUMNS), options=options)
    guided = walk.model_copy(update={"decoder": SamplingOptions(steps=62, guidance=3.0)})
    edited = edit(model, fruit, how=Edit(to=GREEN, origin=FRUIT, frames=5), options=guided)
    repainted = inpaint(model, fruit, how=Inpaint(prompt=GREEN, box=box), options=options)
    return [
        [(one, "vary:"), *labelled(vary(model, one, options=five))],
        [
            (one, "vary --eta 0.5:"),
            *labelled(kept),
            (fruit, "vary:"),
            *labelled(vary(model, fruit, options=two)),
        ],
        labelled(between),
        [(fruit, "edit:"), *labelled(edited)],
        [(one, "mix:"), (other, "and"), *labelled(mix(model, one, other, options=three))],
        [
            (fruit, "reconstruct:"),
            *labelled(reconstruct(model, fruit, options=walk)),
            (holed(fruit, box), "inpaint:"),
            *labelled(repainted),
        ],
    ]


def labelled(making: Making) -> Row:
    """The pictures of a manipulation with their labels."""
    return [(made.image, made.label) for made in finish(making)]


def holed(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """A picture with what is drawn anew in grey."""
    image = image.copy()
    ImageDraw.Draw(image).rectangle(box, fill="grey")
    return image


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("out/manipulations.png"))
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    sheet = []
    for row in rows(unclip.load(arguments.model), arguments.size):
        blank = [(Image.new("RGB", (CELL, CELL), "white"), "")] * (COLUMNS - len(row))
        sheet += [*((resize(image, CELL), label) for image, label in row), *blank]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    drawn = contact_sheet([image for image, _ in sheet], COLUMNS, [label for _, label in sheet])
    drawn.quantize(256).save(arguments.output, optimize=True)
    print(arguments.output)


if __name__ == "__main__":
    main()
