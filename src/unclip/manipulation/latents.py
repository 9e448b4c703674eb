"""The two halves of a picture's code, z_i and x_T (§2), and drawing from them."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.samplers.repaint import Known
from unclip.errors import OptionError
from unclip.images import centre_crop, resize, to_tensor
from unclip.manipulation.inputs import Input
from unclip.manipulation.options import Fit
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness
from unclip.types import Sampling, TextFeatures

INVERSION = SamplingOptions(sampler="ddim", steps=250, spacing="strided", clip="none", skip=1)
"""The walk there and back: 249 of 250 steps (§2), unguided, x̂0 not clipped."""

EXACT = 60
"""Evaluations at most for each step of an exact inversion."""

LARGEST = 1024
"""Side to which pictures are reduced before CLIP sees them."""


def there_and_back(model: UnCLIP, asked: GenerateOptions, eta: float = 0.0) -> GenerateOptions:
    """Complete options whose decoder walks as inversions do, where ``asked`` does not differ.

    Raises:
        OptionError: the decoder is asked to walk in a way that cannot be walked back, or for
            another η or shape than the picture's code has.
    """
    chosen = asked.model_dump(exclude_unset=True).get("decoder", {})
    walk = INVERSION.updated({**chosen, "eta": eta}, source="decoder")
    if walk.sampler != "ddim" or walk.start < 1 or walk.end > 0:
        raise OptionError(
            "only ddim from full noise to clean data can be walked back: leave decoder.sampler, "
            "decoder.start and decoder.end unset here"
        )
    if chosen.get("eta", eta) != eta:
        raise OptionError(
            f"decoder.eta does nothing here, the way from x_T has noise η = {eta:g}: leave it unset"
        )
    if asked.width is not None and asked.width != asked.size:
        raise OptionError("width does nothing here, x_T of a picture is square: leave it unset")
    return model.complete(asked).model_copy(update={"decoder": walk})


def embed_picture(model: UnCLIP, picture: Input, fit: Fit) -> Float[Tensor, "1 d"]:
    """z_i of a picture."""
    image = square(picture.image, fit)
    return model.encode_image(to_tensor(resize(image, min(image.width, LARGEST)))[None]).cpu()


def square(image: Image.Image, fit: Fit) -> Image.Image:
    """The middle of a picture, or all of it on white."""
    if fit == "crop":
        return centre_crop(image, min(image.size))
    side = max(image.size)
    sheet = Image.new("RGB", (side, side), "white")
    sheet.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return sheet


def calibrate(
    model: UnCLIP,
    pictures: Sequence[Input],
    image_embedding: Float[Tensor, "b d"],
    options: GenerateOptions,
    asked: GenerateOptions,
    *,
    fit: Fit,
) -> GenerateOptions:
    """Tell the walk how far the decoder's x̂0 is from these pictures, unless it was told.

    Without that, ε̂ near clean data would be this error over σ, for a decoder that predicts x0
    dozens of times too loud, and x_T with it.
    """
    if "x0_error" in asked.model_dump(exclude_unset=True).get("decoder", {}):
        return options
    x0 = torch.cat([_clean(model, picture, options, fit) for picture in pictures])
    noise = _first_noise(options, x0).expand_as(x0)
    back = _unguided(options)
    with model.decoder.use() as decoder:
        error = decoder.x0_error(x0, image_embedding, back, noise)
    walk = options.decoder.model_copy(update={"x0_error": round(error, 4)})
    return options.model_copy(update={"decoder": walk})


def invert(
    model: UnCLIP,
    picture: Input,
    image_embedding: Float[Tensor, "1 d"],
    options: GenerateOptions,
    *,
    fit: Fit,
    exact: bool,
) -> Sampling:
    """x_T [1 c h w] of a picture, by DDIM inversion of the decoder with z_i and no caption.

    ``options`` are those of `there_and_back`, after `calibrate`. The noise of the first step has
    their seed.
    """
    x0 = _clean(model, picture, options, fit)
    noise, back = _first_noise(options, x0), _unguided(options)
    x_T = yield from model.decoder.sample(
        lambda decoder: decoder.invert(
            x0, image_embedding, None, back, iterations=EXACT if exact else 0, noise=noise
        )
    )
    return x_T.cpu()


def _clean(
    model: UnCLIP, picture: Input, options: GenerateOptions, fit: Fit
) -> Float[Tensor, "1 c h w"]:
    """A picture as the decoder draws it: pixels or latents."""
    side = model.sizes[0]
    if model.latents is None:
        return to_tensor(resize(square(picture.image, fit), side))[None]
    pixels = to_tensor(resize(square(picture.image, fit), options.size or side))[None]
    with model.latents.codec.use() as codec:
        return codec.encode(pixels).cpu()


def _first_noise(
    options: GenerateOptions, x0: Float[Tensor, "b c h w"]
) -> Float[Tensor, "1 c h w"]:
    return Randomness([options.seed]).split("inversion").normal(*x0.shape[1:])


def _unguided(options: GenerateOptions) -> SamplingOptions:
    return options.decoder.model_copy(update={"guidance": 1.0, "eta": 0.0})


def draw(
    model: UnCLIP,
    image_embedding: Float[Tensor, "b d"],
    options: GenerateOptions,
    seeds: Sequence[int],
    *,
    text: TextFeatures | None = None,
    x_T: Float[Tensor, "b c h w"] | None = None,
    known: Mapping[int, Known] | None = None,
) -> Sampling:
    """Decode and upsample rows of embeddings, ``options.batch`` at a time, each from its seed.

    ``known`` is the same for all rows.
    """
    drawn = []
    for start in range(0, len(image_embedding), options.batch):
        rows = slice(start, start + options.batch)
        here = torch.arange(len(image_embedding))[rows]
        images = yield from model.decode(
            image_embedding[rows].contiguous(),
            None if text is None else text.take(here),
            options,
            Randomness(seeds[rows]),
            # Strides decide which kernel runs, and so the last bits.
            x_T=None if x_T is None else x_T[rows].contiguous(),
            known=known,
        )
        drawn.append(images.cpu())
    return torch.cat(drawn)
