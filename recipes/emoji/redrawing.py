"""Teach the upsampler to 256 px to mend what the decoder draws.

The paper blurs the small pictures that an upsampler trains on, to hide what the stage below does
wrong (§1.6). Here half of them are drawn by that stage itself: a picture is shrunk, noised, and
walked back by the decoder as when sampling. So the small picture has the decoder's edges and
specks, in the right places, and the large one has the artist's.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.clip.clip import Clip
from unclip.decoder.decoder import Decoder
from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.sampling import first_timestep
from unclip.randomness import Randomness
from unclip.training.objectives import unwrapped
from unclip.types import Batch, Losses, finish
from unclip.upsampler.degradation import degrade
from unclip.upsampler.resize import shrink

SHARE = 0.5
"""Of the pictures that the decoder draws; the others are as in the paper."""
NOISED = (0.25, 0.55)
"""How far up they are noised, as a share of T. From further up the decoder draws other shapes,
which cannot be mended."""
CROP = 128
"""Side of what is trained on, of 256 px."""


class Redrawing:
    """Loss of an upsampler, some of whose small pictures the decoder draws (`Objective`).

    Args:
        clip: gives z_i and reads the captions.
        decoder: draws pictures of the size that the upsampler enlarges.
        options: how it draws, guidance included. Walks from a noised picture take as many of the
            steps as the way is shorter.
    """

    def __init__(self, clip: Clip, decoder: Decoder, options: SamplingOptions) -> None:
        self.clip, self.decoder, self.options = clip, decoder.requires_grad_(False).eval(), options

    def __call__(self, stage: nn.Module, batch: Batch, randomness: Randomness) -> Losses:
        """Diffusion loss of crops of ``batch.images`` [b 3 H H], whole pictures with captions."""
        assert batch.images is not None
        assert batch.captions is not None
        upsampler = unwrapped(stage)
        high, factor = batch.images.float(), upsampler.config.factor
        seeds = randomness.split("seeds").integers(2**62).tolist()
        drawn = round(SHARE * len(high))
        low = degrade(high, factor, upsampler.config.corruption, randomness.split("corruption"))
        small = shrink(high[:drawn], factor)
        low[:drawn] = self.redraw(small, batch.captions[:drawn], Randomness(seeds[:drawn]))
        places = [_place(seed, high.shape[-1], factor) for seed in seeds]
        return upsampler.loss(
            _crops(high, places, CROP),
            _crops(low, [(y // factor, x // factor) for y, x in places], CROP // factor),
            randomness,
        )

    @torch.no_grad()
    def redraw(
        self, images: Float[Tensor, "b 3 h w"], captions: tuple[str, ...], randomness: Randomness
    ) -> Float[Tensor, "b 3 h w"]:
        """Noise pictures, all to one level, and let the decoder draw them from there."""
        least, most = NOISED
        start = least + (most - least) * float(randomness.split("level").uniform()[0])
        end = self.options.end
        steps = max(2, round(self.options.steps * (start - end) / (1 - end)))
        options = self.options.updated({"start": start, "steps": steps})
        t = torch.full((len(images),), first_timestep(self.decoder.process, options))
        noise = randomness.split("noise").normal(*images.shape[1:]).to(images)
        walk = self.decoder.sample(
            self.clip.encode_image(images),
            self.clip.encode_text(captions, warn=False),
            options,
            randomness,
            x_T=self.decoder.process.add_noise(images, t, noise),
        )
        return finish(walk).to(images).clamp(-1, 1)


def _place(seed: int, side: int, multiple: int) -> tuple[int, int]:
    """Top and left of a crop."""
    generator = torch.Generator().manual_seed(seed)
    top, left = torch.randint((side - CROP) // multiple + 1, (2,), generator=generator).tolist()
    return multiple * top, multiple * left


def _crops(
    images: Float[Tensor, "b c h w"], places: list[tuple[int, int]], side: int
) -> Float[Tensor, "b c s s"]:
    cut = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(images, places, strict=True)
    ]
    return torch.stack(cut)
