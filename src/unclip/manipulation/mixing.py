"""Blends of pictures and prompts: one z_i from the weighted sum of several."""

from collections.abc import Generator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.errors import OptionError
from unclip.manipulation.inputs import Input, Item, Picture, read_item
from unclip.manipulation.latents import draw, embed_picture
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Fit, Mix
from unclip.manipulation.spherical import weighted
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP, check_prompts
from unclip.randomness import Randomness
from unclip.types import Step


def mix(
    model: UnCLIP,
    *items: Picture | Input,
    how: Mix | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw ``options.images`` pictures of a blend; prompts enter through the prior.

    Raises:
        OptionError: nothing to mix, or another number of weights.
        ImageError: a picture cannot be read.
        CheckpointError: there are prompts, and the model has no prior.
    """
    how, asked = how or Mix(), options or GenerateOptions()
    found = tuple(read_item(item) for item in items)
    weights = how.weights or (1.0,) * len(found)
    if not found:
        raise OptionError("nothing to mix; name images or prompts")
    if len(weights) != len(found):
        raise OptionError(f"{len(weights)} weights for {len(found)} images and prompts")
    complete = model.complete(asked)
    seeds = [complete.seed + i for i in range(complete.images)]
    ends = yield from embed_items(model, found, complete, how.fit)
    blend = weighted(ends, torch.tensor(weights))[None]
    images = yield from draw(model, blend.expand(len(seeds), -1), complete, seeds)
    labels = [f"seed {seed}" for seed in seeds]
    return Job("mix", found, how, complete).made(model, images, labels)


def embed_items(
    model: UnCLIP, items: Sequence[Item], options: GenerateOptions, fit: Fit
) -> Generator[Step, None, Float[Tensor, "k d"]]:
    """z_i of each: CLIP's for a picture, the prior's (with the options' seed) for a prompt."""
    prompts = [item for item in items if isinstance(item, str)]
    drawn: list[Tensor] = []
    if prompts:
        check_prompts(prompts)
        text = model.encode_text(prompts)
        randomness = Randomness([options.seed] * len(prompts))
        drawn = list((yield from model.embed(text, options, randomness)).cpu())
    return torch.stack(
        [
            drawn.pop(0) if isinstance(item, str) else embed_picture(model, item, fit)[0]
            for item in items
        ]
    )
