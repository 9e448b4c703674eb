"""Pictures between pictures (Fig. 4): z_i along arcs, x_T fixed or along its own."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.errors import OptionError
from unclip.manipulation.inputs import Input, Item, Picture, read_item
from unclip.manipulation.latents import calibrate, draw, invert, there_and_back
from unclip.manipulation.made import Job, Making
from unclip.manipulation.mixing import embed_items
from unclip.manipulation.options import Interpolate
from unclip.manipulation.spherical import slerp
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP

CORNERS = 4


def interpolate(
    model: UnCLIP,
    *items: Picture | Input,
    how: Interpolate | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Go from each picture (or prompt) to the next; all frames share the seed.

    With ``how.noise`` = ``slerp`` x_T goes from the inversion of one picture to that of the next,
    and the ends are reconstructions. With ``how.grid`` the frames fill a square, row by row, with
    the four pictures at its corners.

    Raises:
        OptionError: too few pictures, or not four for a grid; prompts where x_T is needed.
        ImageError: a picture cannot be read.
        CheckpointError: there are prompts, and the model has no prior.
    """
    how, asked = how or Interpolate(), options or GenerateOptions()
    found = tuple(read_item(item) for item in items)
    _check(found, how)
    turned = how.noise == "slerp"
    complete = there_and_back(model, asked) if turned else model.complete(asked)
    ends = yield from embed_items(model, found, complete, how.fit)
    image_embedding = _between(ends, how)
    x_T = None  # one seed for all is one x_T for all
    if turned:
        pictures = [item for item in found if isinstance(item, Input)]
        complete = calibrate(model, pictures, ends, complete, asked, fit=how.fit)
        inverted = []
        for picture, end in zip(pictures, ends, strict=True):
            way = invert(model, picture, end[None], complete, fit=how.fit, exact=how.exact)
            inverted.append((yield from way))
        x_T = _between(torch.cat(inverted), how)
    seeds = [complete.seed] * len(image_embedding)
    images = yield from draw(model, image_embedding, complete, seeds, x_T=x_T)
    return Job("interpolate", found, how, complete).made(model, images, _labels(found, how))


def places(ends: int, frames: int) -> list[tuple[int, float]]:
    """For each frame, even along the whole way, the arc it lies on and how far along that."""
    arcs = ends - 1
    found = []
    for frame in range(frames):
        whole, rest = divmod(frame * arcs, frames - 1)
        at_the_end = whole == arcs
        found.append((arcs - 1, 1.0) if at_the_end else (whole, rest / (frames - 1)))
    return found


def _check(items: Sequence[Item], how: Interpolate) -> None:
    if how.grid and len(items) != CORNERS:
        raise OptionError(f"a grid has four corners, {len(items)} pictures were given")
    if len(items) < 2:
        raise OptionError("interpolation needs two pictures or more")
    prompts = [item for item in items if isinstance(item, str)]
    if prompts and how.noise == "slerp":
        raise OptionError(
            f"{prompts[0]!r} is a prompt and has no x_T: leave noise at fixed, or name a picture"
        )


def _between(ends: Float[Tensor, "k ..."], how: Interpolate) -> Float[Tensor, "b ..."]:
    """All frames, in order."""
    if not how.grid:
        return _along(ends, how.frames)
    left, right = _along(ends[[0, 2]], how.frames), _along(ends[[1, 3]], how.frames)
    rows = [_along(torch.stack(pair), how.frames) for pair in zip(left, right, strict=True)]
    return torch.cat(rows)


def _along(ends: Float[Tensor, "k ..."], frames: int) -> Float[Tensor, "frames ..."]:
    arcs, thetas = zip(*places(len(ends), frames), strict=True)
    start = torch.tensor(arcs)
    return slerp(ends[start], ends[start + 1], torch.tensor(thetas, dtype=torch.float64))


def _labels(items: Sequence[Item], how: Interpolate) -> list[str]:
    if how.grid:
        steps = [f"{place / (how.frames - 1):.2f}" for place in range(how.frames)]
        return [f"{down}, {across}" for down, across in itertools.product(steps, steps)]
    return [f"θ {arc + theta:.2f}" for arc, theta in places(len(items), how.frames)]
