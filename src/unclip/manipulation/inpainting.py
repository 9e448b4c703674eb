"""Parts of a picture drawn anew, or beyond its edges: the rest is known at every stage."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageChops
from torch import Tensor

from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.samplers.repaint import Known
from unclip.errors import OptionError
from unclip.images import to_pil, to_tensor
from unclip.manipulation.inputs import Input, Picture, read_input
from unclip.manipulation.latents import draw, embed_picture
from unclip.manipulation.made import Job, Making
from unclip.manipulation.mixing import embed_items
from unclip.manipulation.options import Inpaint
from unclip.manipulation.spherical import slerp
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.types import Step

INPAINTING = SamplingOptions(sampler="ddim", eta=1.0, steps=50, spacing="strided")
"""As noisy as ancestral sampling, so that what is drawn can settle into what is known."""

_OPAQUE = 255


@dataclass(frozen=True)
class Canvas:
    """A picture on a square, and what of it is to be drawn."""

    image: Image.Image
    """RGBA; transparent where to draw, so that nothing from there bleeds when it is resized."""
    inner: tuple[int, int, int, int]
    """Where in the square the result lies: left, top, right, bottom."""

    def known(self, size: int, resamplings: int, *, generous: bool) -> Known:
        """What is given at ``size`` pixels a side.

        ``generous`` draws every pixel that the mask so much as touches; otherwise those it
        covers by half. Small pictures want the first, or the join would hold a mixture.
        """
        alpha = self.image.getchannel("A")
        covered = alpha.resize((size, size), Image.Resampling.BOX)
        least = _OPAQUE if generous else _OPAQUE // 2 + 1
        kept = torch.from_numpy(np.asarray(covered) >= least).float()
        pixels = self.image.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
        return Known(to_tensor(pixels)[None], 1 - kept[None, None], resamplings)

    def cut(self, image: Image.Image) -> Image.Image:
        """The part of a drawn square that is the result."""
        scale = image.width / self.image.width
        left, top, right, bottom = (round(edge * scale) for edge in self.inner)
        return image.crop((left, top, right, bottom))


def inpaint(
    model: UnCLIP,
    image: Picture | Input,
    mask: Picture | Input | None = None,
    *,
    how: Inpaint | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw ``options.images`` versions of what a mask covers.

    The mask is a file (white, or transparent, is drawn anew), a box, or the transparent part of
    the picture itself; ``how.extend`` adds room around it. z_i is the prompt's, the picture's, or
    between both. The result has the picture's proportions, its longer side the size asked for.

    Raises:
        OptionError: nothing is masked, or everything; a mask of another size; or a sampler that
            cannot inpaint.
        ImageError: a file cannot be read.
        CheckpointError: there is a prompt, and the model has no prior.
    """
    how, asked = how or Inpaint(), options or GenerateOptions()
    picture = read_input(image)
    file = None if mask is None else read_input(mask)
    canvas = make_canvas(picture, file, how)
    complete = _inpainting(model, asked)
    seeds = [complete.seed + i for i in range(complete.images)]
    image_embedding = yield from _embedding(model, picture, how, complete)
    text = model.encode_text([how.prompt] * len(seeds)) if how.prompt.strip() else None
    known = {model.sizes[0]: canvas.known(model.sizes[0], how.resamplings, generous=True)}
    for size, _ in model.refiners(complete):
        known[size] = canvas.known(size, 1, generous=False)
    rows = image_embedding.expand(len(seeds), -1)
    images = yield from draw(model, rows, complete, seeds, text=text, known=known)
    pictures = [canvas.cut(to_pil(drawn)) for drawn in images]
    items = (picture,) if file is None else (picture, file)
    labels = [f"seed {seed}" for seed in seeds]
    return Job("inpaint", items, how, complete).of(pictures, labels, model)


def make_canvas(picture: Input, mask: Input | None, how: Inpaint) -> Canvas:
    """Lay a picture and its mask on a square.

    Raises:
        OptionError: nothing is masked, or everything; or the mask is of another size.
    """
    drawn = _masked(picture, mask, how)
    extend = how.extend or (0, 0, 0, 0)
    width, height = picture.image.size
    left, top, right, bottom = extend
    outer = (width + left + right, height + top + bottom)
    whole = Image.new("L", outer, _OPAQUE)
    whole.paste(drawn, (left, top))
    if whole.getextrema()[1] == 0:
        raise OptionError(
            "nothing is masked: give --mask FILE, --box, --extend, or a picture with transparency"
        )
    if whole.getextrema()[0] == _OPAQUE:
        raise OptionError("everything is masked; `unclip generate` draws from nothing")
    rgb = np.pad(np.asarray(picture.image), ((top, bottom), (left, right), (0, 0)), mode="edge")
    side = max(outer)
    at = ((side - outer[0]) // 2, (side - outer[1]) // 2)
    # What only fills the square up is known: the edge goes on.
    around = [(at[1], side - outer[1] - at[1]), (at[0], side - outer[0] - at[0])]
    square = Image.fromarray(np.pad(rgb, (*around, (0, 0)), mode="edge"))
    square.putalpha(Image.fromarray(_OPAQUE - np.pad(np.asarray(whole), around)))
    return Canvas(square, (at[0], at[1], at[0] + outer[0], at[1] + outer[1]))


def _masked(picture: Input, mask: Input | None, how: Inpaint) -> Image.Image:
    """White where the picture is to be drawn anew."""
    size = picture.image.size
    drawn = Image.new("L", size)
    if mask is not None:
        if mask.image.size != size:
            raise OptionError(
                f"{mask.name} is {mask.image.width} × {mask.image.height} px, {picture.name} is "
                f"{size[0]} × {size[1]}: the mask must have the picture's size"
            )
        opacity = mask.opacity
        white = mask.image.convert("L") if opacity is None else ImageChops.invert(opacity)
        drawn = white.point([0] * 128 + [_OPAQUE] * 128)
    elif how.box is None and picture.opacity is not None:
        drawn = ImageChops.invert(picture.opacity).point([0] + [_OPAQUE] * 255)
    if how.box is not None:
        if how.box[2] > size[0] or how.box[3] > size[1]:
            raise OptionError(f"box {how.box} reaches beyond {picture.name}, {size[0]} × {size[1]}")
        drawn.paste(_OPAQUE, how.box)
    return drawn


def _embedding(
    model: UnCLIP, picture: Input, how: Inpaint, options: GenerateOptions
) -> Generator[Step, None, Float[Tensor, "1 d"]]:
    """z_i [1 d] of the prompt, the picture, or between them."""
    prompt = bool(how.prompt.strip())
    share = how.image_weight
    share = (0.0 if prompt else 1.0) if share is None else share
    if not prompt:
        if share < 1:
            raise OptionError("image_weight is below 1, but there is no prompt; give one")
        return embed_picture(model, picture, "pad")
    asked = yield from embed_items(model, [how.prompt], options, "pad")
    return slerp(asked, embed_picture(model, picture, "pad"), share) if share > 0 else asked


def _inpainting(model: UnCLIP, asked: GenerateOptions) -> GenerateOptions:
    """Complete options whose samplers can keep what is known."""
    complete = model.complete(asked)
    chosen = asked.model_dump(exclude_unset=True).get("decoder", {})
    guided = complete.decoder.model_dump(include={"guidance", "guidance_interval"})
    walk = INPAINTING.updated({**guided, **chosen}, source="decoder")
    if walk.sampler not in ("ddim", "ancestral") or walk.start < 1:
        raise OptionError(
            f"inpainting samples by ddim or ancestral, from full noise, not by {walk.sampler} from "
            f"{walk.start:g}: leave decoder.sampler and decoder.start unset here"
        )
    upsamplers = {
        size: way.model_copy(update={"sampler": "ddim"}) if _solver(way) else way
        for size, way in complete.upsampler.items()
    }
    return complete.model_copy(update={"decoder": walk, "upsampler": upsamplers})


def _solver(options: SamplingOptions) -> bool:
    return options.sampler in ("dpm++", "unipc")
