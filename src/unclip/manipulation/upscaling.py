"""Any picture enlarged by the model's upsamplers (§1.6), which know nothing but pixels."""

import math

from unclip.errors import OptionError
from unclip.images import MAX_PIXELS, to_tensor
from unclip.manipulation.inputs import Input, Picture, read_input
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Upscale
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness


def upscale(
    model: UnCLIP,
    image: Picture | Input,
    *,
    how: Upscale | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Enlarge a picture of any proportions.

    The first upsampler is the one made for the size nearest to the picture's shorter side; the
    last is the one that draws ``options.size``, the largest if unset.

    Raises:
        OptionError: the model has no upsampler there, or the result would be too large.
        ImageError: the picture cannot be read.
    """
    how = how or Upscale()
    picture = read_input(image)
    complete = model.complete(options or GenerateOptions())
    largest = complete.size or model.sizes[-1]
    sizes = [size for size in model.sizes if size <= largest]
    if len(sizes) < 2:
        raise OptionError(f"{model.name} has no upsampler to {largest} px; choose another size")
    width, height = picture.image.size
    short = min(width, height)
    start = min(sizes[:-1], key=lambda size: abs(math.log(size / short)))
    times = sizes[-1] // start
    if width * height * times**2 > MAX_PIXELS:
        raise OptionError(
            f"{picture.name} is {width} × {height} px and would be enlarged {times} times; shrink "
            "it first"
        )
    images = to_tensor(picture.image)[None]
    images = yield from model.upsample(images, complete, Randomness([complete.seed]), start=start)
    job = Job("upscale", (picture,), how, complete)
    return job.made(model, images.cpu(), [f"× {times}"])
