"""Edits by text (Fig. 5): z_i turned towards what one caption has and another has not."""

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.errors import PromptError
from unclip.manipulation.inputs import Input, Picture, read_input
from unclip.manipulation.latents import calibrate, draw, embed_picture, invert, there_and_back
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Edit
from unclip.manipulation.spherical import slerp
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP, check_prompts


def edit(
    model: UnCLIP,
    image: Picture | Input,
    *,
    how: Edit,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw the trajectory θ = 0 … ``how.theta``, all from the picture's one x_T and one seed.

    The first frame, at θ = 0, is the reconstruction unless the decoder is guided; a single one
    is the goal.

    Raises:
        PromptError: the two captions are the same to CLIP.
        ImageError: the picture cannot be read.
        OptionError: decoder options that cannot be walked back.
    """
    picture = read_input(image)
    asked = options or GenerateOptions()
    complete = there_and_back(model, asked)
    check_prompts([how.to])
    texts = [how.to, how.origin] if how.origin.strip() else [how.to]
    text = model.encode_text(texts).embedding.cpu()
    image_embedding = embed_picture(model, picture, how.fit)
    thetas = torch.linspace(how.theta, 0, how.frames, dtype=torch.float64).flip(0)
    turned = trajectory(image_embedding, text_difference(text), thetas)
    complete = calibrate(model, [picture], image_embedding, complete, asked, fit=how.fit)
    x_T = yield from invert(model, picture, image_embedding, complete, fit=how.fit, exact=how.exact)
    seeds = [complete.seed] * len(thetas)
    images = yield from draw(
        model, turned, complete, seeds, x_T=x_T.expand(len(thetas), -1, -1, -1)
    )
    labels = [f"θ {theta:.2f}" for theta in thetas.tolist()]
    return Job("edit", (picture,), how, complete).made(model, images, labels)


def text_difference(text: Float[Tensor, "k d"]) -> Float[Tensor, "1 d"]:
    """z_d = (z_t − z_t0) / ‖z_t − z_t0‖ of two embeddings; of a single one, its direction.

    Raises:
        PromptError: there is no difference.
    """
    difference = text[:1] - text[1:2] if len(text) > 1 else text[:1]
    length = difference.norm()
    if length <= 1e-6 * text[0].norm():
        raise PromptError("both captions mean the same to CLIP; there is no direction between them")
    return difference / length


def trajectory(
    image_embedding: Float[Tensor, "1 d"],
    difference: Float[Tensor, "1 d"],
    thetas: Float[Tensor, " b"],
) -> Float[Tensor, "b d"]:
    """z_θ = slerp(z_i, z_d, θ), z_d as long as z_i; at θ = 0 that is z_i to the last bit."""
    start = image_embedding.expand(len(thetas), -1)
    goal = (difference * image_embedding.norm()).expand(len(thetas), -1)
    return slerp(start, goal, thetas)
