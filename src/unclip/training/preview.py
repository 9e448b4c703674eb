"""Pictures of a training in progress: what the stage draws now, beside what it should draw."""

from collections.abc import Callable
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from unclip.data.loader import Loader
from unclip.diffusion.sampling import SamplingOptions
from unclip.images import contact_sheet, to_pil
from unclip.options import GenerateOptions, upsampling
from unclip.randomness import Randomness
from unclip.types import Batch, finish
from unclip.upsampler.resize import shrink

SHOWN = 16
COLUMNS = 8


def preview_of(
    stage: Any,
    loader: Loader,
    conditioner: Callable[[Batch], Batch] | None,
    options: GenerateOptions,
    steps: int,
) -> Callable[[Any], Image] | None:
    """A preview for stages that draw pixels: each real image and, right of it, the drawn one.

    Captions, images and seeds are those of the first batch and stay the same, so previews of one
    training can be compared. They are drawn in ``steps`` steps at most, for other processes wait.
    """
    if stage.name not in ("decoder", "upsampler"):
        return None
    first: list[Batch] = []

    def draw(stage: Any) -> Image:
        if not first:
            first.append(next(iter(loader.batches(0))))
        batch = conditioner(first[0]) if conditioner else first[0]
        assert batch.images is not None
        real = batch.images[:SHOWN]
        drawn = _drawn(stage, batch, real, _how(stage, options, steps))
        captions = (batch.captions or batch.keys)[: len(real)]
        return contact_sheet(
            [to_pil(image) for pair in zip(real, drawn, strict=True) for image in pair],
            COLUMNS,
            [text for caption in captions for text in (caption, "drawn")],
        )

    return draw


def _how(stage: Any, options: GenerateOptions, steps: int) -> SamplingOptions:
    how = options.decoder
    if stage.name != "decoder":
        size = stage.config.high
        how = options.upsampler.get(str(size)) or upsampling(size)
    if how.steps <= steps:
        return how
    # A list of timesteps, and steps to skip, are of the number of steps they were made for.
    spacing = None if isinstance(how.spacing, tuple) else how.spacing
    return how.updated({"steps": steps, "spacing": spacing, "skip": 0})


def _drawn(stage: Any, batch: Batch, real: Tensor, how: SamplingOptions) -> Tensor:
    randomness = Randomness(range(len(real)))
    if stage.name == "decoder":
        assert batch.text is not None
        assert batch.image_embedding is not None
        text = batch.text.take(torch.arange(len(real)))
        z_i = batch.image_embedding[: len(real)]
        return finish(stage.sample(z_i, text, how, randomness))
    return finish(stage.sample(shrink(real, stage.config.factor), how, randomness))
