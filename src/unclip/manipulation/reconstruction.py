"""Pictures from their own code: (z_i, x_T) and back (§2), and from parts of z_i alone (Fig. 7)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.errors import OptionError
from unclip.images import resize, to_tensor
from unclip.manipulation.embeddings import read_embeddings
from unclip.manipulation.inputs import Input, Picture, read_input
from unclip.manipulation.latents import (
    calibrate,
    draw,
    embed_picture,
    invert,
    square,
    there_and_back,
)
from unclip.manipulation.made import Job, Making
from unclip.manipulation.options import Reconstruct
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.prior.autoregressive import AutoregressivePrior
from unclip.prior.pca import Pca, principal_components
from unclip.randomness import Randomness


def reconstruct(
    model: UnCLIP,
    image: Picture | Input,
    embeddings: Picture | Input | None = None,
    *,
    how: Reconstruct | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Invert the decoder and come back; or draw z_i cut to its first principal components.

    Without ``how.dimensions`` there is one picture, whose label tells the error at the decoder's
    size. With them there is one a number, all from one noise, and the components are those of
    ``embeddings``, a file that `embed` wrote, or those that the model's autoregressive prior keeps.

    Raises:
        ImageError: the picture or the embeddings cannot be read.
        CheckpointError: the embeddings are of another size.
        OptionError: dimensions without embeddings or such a prior, or more than there are; or
            embeddings without dimensions.
    """
    how, asked = how or Reconstruct(), options or GenerateOptions()
    picture = read_input(image)
    if how.dimensions:
        return (yield from _from_components(model, picture, embeddings, how, asked))
    if embeddings is not None:
        raise OptionError("embeddings do nothing without dimensions: say how many are to be kept")
    complete = there_and_back(model, asked)
    image_embedding = embed_picture(model, picture, how.fit)
    complete = calibrate(model, [picture], image_embedding, complete, asked, fit=how.fit)
    x_T = yield from invert(model, picture, image_embedding, complete, fit=how.fit, exact=how.exact)
    small = complete.model_copy(update={"size": model.sizes[0]}) if model.upsamplers else complete
    seeds = [complete.seed]
    drawn = yield from draw(model, image_embedding, small, seeds, x_T=x_T)
    pixels = to_tensor(resize(square(picture.image, how.fit), drawn.shape[-1]))[None]
    images = yield from model.upsample(drawn, complete, Randomness(seeds))
    label = f"{psnr(drawn, pixels):.1f} dB"
    return Job("reconstruct", (picture,), how, complete).made(model, images.cpu(), [label])


def _from_components(
    model: UnCLIP,
    picture: Input,
    embeddings: Picture | Input | None,
    how: Reconstruct,
    asked: GenerateOptions,
) -> Making:
    file = None if embeddings is None else read_input(embeddings)
    if file is None:
        components, whose = _of_the_prior(model), "the model's prior keeps"
    else:
        components, whose = principal_components([read_embeddings(file, model)]), "there are"
    if (largest := max(how.dimensions)) > len(components.components):
        raise OptionError(f"dimensions {largest}: {whose} {len(components.components)}")
    complete = model.complete(asked)
    image_embedding = embed_picture(model, picture, how.fit)
    cut = torch.cat([keep_components(components, image_embedding, k) for k in how.dimensions])
    # One seed for all is one x_T for all.
    images = yield from draw(model, cut, complete, [complete.seed] * len(cut))
    labels = [f"{keep} of {len(components.mean)}" for keep in how.dimensions]
    items = (picture,) if file is None else (picture, file)
    return Job("reconstruct", items, how, complete).made(model, images, labels)


def _of_the_prior(model: UnCLIP) -> Pca:
    """The components that an autoregressive prior was trained to write."""
    if model.prior is not None:
        with model.prior.use() as prior:
            if isinstance(prior, AutoregressivePrior) and prior.codec.measured:
                return prior.codec.pca
    raise OptionError(
        f"principal components are found in embeddings of many pictures, and {model.name} has no "
        "autoregressive prior that keeps some: make a file of embeddings with `unclip embed "
        "FOLDER`, and name it with --embeddings"
    )


def keep_components(
    components: Pca, image_embedding: Float[Tensor, "b d"], keep: int
) -> Float[Tensor, "b d"]:
    """z_i as its first ``keep`` principal components tell it, brought back to its length."""
    cut = components.reconstruct(image_embedding, keep)
    length = image_embedding.double().norm(dim=-1, keepdim=True)
    return (cut * length / cut.norm(dim=-1, keepdim=True).clamp(min=1e-12)).float()


def psnr(images: Float[Tensor, "b 3 h w"], reference: Float[Tensor, "b 3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], clipped as a file clips them."""
    error = float((images.clamp(-1, 1).cpu() - reference.cpu()).square().mean())
    return 10 * math.log10(4 / error) if error > 0 else math.inf
