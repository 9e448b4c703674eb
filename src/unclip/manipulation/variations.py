"""Variations of a picture (Fig. 3): its z_i kept, its x_T or the way from there not."""

from unclip.manipulation.inputs import Input, Picture, read_input
from unclip.manipulation.latents import calibrate, draw, embed_picture, invert, there_and_back
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Vary
from unclip.manipulation.spherical import slerp
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness


def vary(
    model: UnCLIP,
    image: Picture | Input,
    *,
    how: Vary | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw ``options.images`` variations, their seeds counting up.

    With strength 1 and η 0 x_T is fresh noise and the decoder samples as the model's defaults
    say. Otherwise it walks as `latents.INVERSION` does, from the picture's x_T turned towards
    fresh noise by the strength, with DDIM noise η.

    Raises:
        ImageError: the picture cannot be read.
        OptionError: decoder options that cannot be walked back.
    """
    how, asked = how or Vary(), options or GenerateOptions()
    picture = read_input(image)
    inverted = how.departure < 1
    complete = _complete(model, asked, how.eta, inverted)
    seeds = [complete.seed + i for i in range(complete.images)]
    image_embedding = embed_picture(model, picture, how.fit)
    x_T = None
    if inverted:
        complete = calibrate(model, [picture], image_embedding, complete, asked, fit=how.fit)
        kept = yield from invert(
            model, picture, image_embedding, complete, fit=how.fit, exact=how.exact
        )
        fresh = Randomness(seeds).split("variation").normal(*kept.shape[1:])
        x_T = slerp(kept.expand_as(fresh), fresh, how.departure)
    images = yield from draw(
        model, image_embedding.expand(len(seeds), -1), complete, seeds, x_T=x_T
    )
    job = Job("vary", (picture,), how, complete)
    return job.made(model, images, [f"seed {seed}" for seed in seeds])


def _complete(model: UnCLIP, asked: GenerateOptions, eta: float, inverted: bool) -> GenerateOptions:
    if not inverted and eta == 0:
        return model.complete(asked)
    walk = there_and_back(model, asked, eta)
    if inverted:
        return walk
    # Fresh noise is of the noisiest level, which inversions leave out.
    return walk.model_copy(update={"decoder": walk.decoder.model_copy(update={"skip": 0})})
