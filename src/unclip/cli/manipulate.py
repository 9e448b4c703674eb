"""``unclip vary``, ``mix``, ``edit`` and their like: one command a manipulation."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unclip.cli.output import Studio
from unclip.errors import OptionError
from unclip.manipulation.options import (
    Edit,
    Inpaint,
    Interpolate,
    Mix,
    Reconstruct,
    Upscale,
    Vary,
)
from unclip.options import (
    Drawing,
    DrawingBetween,
    DrawingSeveral,
    DrawingSquares,
    Enlarging,
    GenerateOptions,
    Repainting,
)

Flat = Parameter(name="*", show_default=False)
# Only what acts is offered: what is drawn from an image has no need of the prior.
_ALL, _SEVERAL, _BETWEEN, _ONE = GenerateOptions(), DrawingSeveral(), DrawingBetween(), Drawing()
_SQUARES, _PARTS, _LARGER = DrawingSquares(), Repainting(), Enlarging()
_STUDIO = Studio()
FPS = 8.0
"""Frames a second unless told otherwise."""


def vary(
    image: str,
    /,
    *,
    how: Annotated[Vary, Flat] = Vary(),  # noqa: B008
    options: Annotated[DrawingSeveral, Flat] = _SEVERAL,
    studio: Studio = _STUDIO,
) -> None:
    """Draw variations of an image: what it is about stays, the rest is free (Fig. 3).

    For example:

        unclip vary cat.png -n 4
        unclip vary cat.png -n 4 --eta 0.5
        unclip vary cat.png --strength 0.3

    Args:
        image: The image to vary.
    """
    from unclip.manipulation.variations import vary

    model = studio.load()
    images = options.over(model.defaults).images
    making = vary(model, Path(image), how=how, options=options.asked())
    studio.run(making, f"{Path(image).stem} varied", images)


def interpolate(
    *items: str,
    animation: Path | None = None,
    fps: float | None = None,
    how: Annotated[Interpolate, Flat] = Interpolate(),  # noqa: B008
    options: Annotated[DrawingBetween, Flat] = _BETWEEN,
    studio: Studio = _STUDIO,
) -> None:
    """Draw the way from one image to the next (Fig. 4), or the square between four.

    For example:

        unclip interpolate cat.png dog.png --frames 7 --sheet between.png
        unclip interpolate cat.png dog.png owl.png --frames 60 --animation film.mp4
        unclip interpolate a.png b.png c.png d.png --grid --frames 5 --sheet square.png

    Args:
        items: Images, two or more; prompts may stand between them.
        animation: Also write the frames as NAME.gif or NAME.mp4.
        fps: Frames a second of the animation; 8 if unset.
    """
    from unclip.manipulation.animation import check_animation, save_animation
    from unclip.manipulation.interpolations import interpolate

    if fps is not None and fps <= 0:
        raise OptionError("fps must be above 0")
    if animation:
        check_animation(animation)
    elif fps is not None:
        raise OptionError("fps does nothing without an animation: name one with --animation")
    making = interpolate(studio.load(), *items, how=how, options=options.asked())
    count = how.frames**2 if how.grid else how.frames
    made = studio.run(making, "between", count, columns=how.frames)
    if animation:
        save_animation(animation, [picture.image for picture in made], fps or FPS)
        studio.report("animation", animation)


def mix(
    *items: str,
    how: Annotated[Mix, Flat] = Mix(),  # noqa: B008
    options: Annotated[GenerateOptions, Flat] = _ALL,
    studio: Studio = _STUDIO,
) -> None:
    """Blend images and prompts into one.

    For example:

        unclip mix cat.png "a rocket" -n 4
        unclip mix cat.png dog.png --weights 2 --weights 1

    Args:
        items: Images and prompts. What names a file, or ends as images do, is an image.
    """
    from unclip.manipulation.mixing import mix

    model = studio.load()
    images = options.over(model.defaults).images
    studio.run(mix(model, *items, how=how, options=options), "mixed", images)


def edit(
    image: str,
    /,
    *,
    how: Annotated[Edit, Flat],
    options: Annotated[DrawingSquares, Flat] = _SQUARES,
    studio: Studio = _STUDIO,
) -> None:
    """Change an image by what one caption has and another has not (Fig. 5).

    For example:

        unclip edit tree.png --from "a tree in winter" --to "a tree in autumn" --sheet years.png

    Args:
        image: The image to change.
    """
    from unclip.manipulation.text_diff import edit

    making = edit(studio.load(), Path(image), how=how, options=options.asked())
    studio.run(making, f"{Path(image).stem} edited", how.frames, columns=how.frames)


def inpaint(
    image: str,
    /,
    *,
    mask: Path | None = None,
    how: Annotated[Inpaint, Flat] = Inpaint(),  # noqa: B008
    options: Annotated[Repainting, Flat] = _PARTS,
    studio: Studio = _STUDIO,
) -> None:
    """Draw a part of an image anew, or what lies beyond its edges.

    For example:

        unclip inpaint cat.png --mask hat.png --prompt "a cat with a hat"
        unclip inpaint cat.png --box 10 10 40 30
        unclip inpaint cat.png --extend 0 0 64 0

    Args:
        image: The image; its transparent part is drawn anew where there is no mask or box.
        mask: An image of the same size: white, or transparent, is drawn anew.
    """
    from unclip.manipulation.inpainting import inpaint

    model = studio.load()
    images = options.over(model.defaults).images
    making = inpaint(model, Path(image), mask, how=how, options=options.asked())
    studio.run(making, f"{Path(image).stem} inpainted", images)


def upscale(
    image: str,
    /,
    *,
    options: Annotated[Enlarging, Flat] = _LARGER,
    studio: Studio = _STUDIO,
) -> None:
    """Enlarge an image with the model's upsamplers.

    For example:

        unclip upscale icon.png --size 256 -o large.png
        unclip upscale photo.png --tile 256

    Args:
        image: The image, of any proportions.
    """
    from unclip.manipulation.upscaling import upscale

    making = upscale(studio.load(), Path(image), how=Upscale(), options=options.asked())
    studio.run(making, f"{Path(image).stem} enlarged", 1)


def reconstruct(
    image: str,
    /,
    *,
    embeddings: Path | None = None,
    how: Annotated[Reconstruct, Flat] = Reconstruct(),  # noqa: B008
    options: Annotated[Drawing, Flat] = _ONE,
    studio: Studio = _STUDIO,
) -> None:
    """Draw an image from its own code: all of it, or a few dimensions of it (Fig. 7).

    For example:

        unclip reconstruct cat.png --size 64
        unclip embed photos -o photos.safetensors
        unclip reconstruct cat.png --embeddings photos.safetensors --dimensions 4 --dimensions 16

    Args:
        image: The image.
        embeddings: A file of `unclip embed`, whose principal components `--dimensions` counts;
            those of the model's autoregressive prior, if it has one, where none is named.
    """
    from unclip.manipulation.reconstruction import reconstruct

    making = reconstruct(studio.load(), Path(image), embeddings, how=how, options=options.asked())
    studio.run(making, f"{Path(image).stem} reconstructed", max(1, len(how.dimensions)))
