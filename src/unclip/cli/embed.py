"""``unclip embed`` and ``unclip decode``: images and prompts to embeddings, and back to images."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from unclip.cli.manipulate import Flat
from unclip.cli.output import Machine, Studio
from unclip.cli.progress import watch
from unclip.errors import ImageError
from unclip.manipulation.options import Decode, Fit
from unclip.options import DrawingSeveral, Embedding

if TYPE_CHECKING:
    from unclip.manipulation.inputs import Item

_MACHINE, _STUDIO = Machine(), Studio()
_OPTIONS, _SEVERAL = Embedding(), DrawingSeveral()


def embed(
    *items: str,
    output: Annotated[Path, Parameter(alias="-o")],
    space: Literal["image", "text"] = "image",
    fit: Fit = "crop",
    options: Annotated[Embedding, Flat] = _OPTIONS,
    machine: Machine = _MACHINE,
) -> None:
    """Embed images and prompts, one row each.

    For example:

        unclip embed photos -o photos.safetensors
        unclip embed cat.png "a red apple" -o both.npy

    Args:
        items: Images, folders of images, and prompts.
        output: NAME.safetensors, which also holds the names, or NAME.npy.
        space: What becomes of prompts: an image embedding by the prior, or CLIP's text embedding.
        fit: What becomes of images that are not square: crop or pad.
    """
    from unclip.images import check_new
    from unclip.manipulation.embeddings import check_name, embed

    check_name(output)
    check_new(output)
    found = [item for word in items for item in _found(word)]
    embeddings = watch(embed(machine.load(), found, space=space, fit=fit, options=options.asked()))
    embeddings.save(output)
    rows, size = embeddings.values.shape
    print(f"{output}  {rows} × {size}")


def _found(word: str) -> "list[Item]":
    """The image or prompt that a word names, or the images of a folder, by name."""
    from unclip.images import SUFFIXES
    from unclip.manipulation.inputs import read_input, read_item

    if not os.path.isdir(word):
        return [read_item(word)]
    files = sorted(
        path for path in Path(word).iterdir() if path.suffix.lower().lstrip(".") in SUFFIXES
    )
    if not files:
        raise ImageError(f"{word} holds no images")
    return [read_input(path) for path in files]


def decode(
    embeddings: Path,
    /,
    *,
    how: Annotated[Decode, Flat] = Decode(),  # noqa: B008
    options: Annotated[DrawingSeveral, Flat] = _SEVERAL,
    studio: Studio = _STUDIO,
) -> None:
    """Draw images from image embeddings, wherever they come from.

    For example:

        unclip decode both.npy -n 2 -o drawn

    Args:
        embeddings: A .npy or .safetensors file of shape [n, d].
    """
    from unclip.manipulation.embeddings import decode, read_embeddings
    from unclip.manipulation.inputs import read_input

    model = studio.load()
    file = read_input(embeddings)
    rows = len(read_embeddings(file, model)) if how.rows is None else len(how.rows)
    images = rows * options.over(model.defaults).images
    making = decode(model, file, how=how, options=options.asked())
    studio.run(making, f"{embeddings.stem} decoded", images)
