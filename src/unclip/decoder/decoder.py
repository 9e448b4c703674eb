"""The decoder (§1.5): from an image embedding z_i, and a caption or none, to a small image.

Binds network, diffusion and conditioning. It knows no CLIP: z_i and text features come with the
batch.
"""

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from unclip.config import Config
from unclip.decoder.conditioning import ClipStatesGuidance
from unclip.decoder.network import Condition, DecoderNetwork, DecoderNetworkConfig
from unclip.diffusion.guidance import guided
from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.process import DiffusionConfig, Network, Process
from unclip.diffusion.samplers.repaint import Known
from unclip.diffusion.sampling import SamplingOptions, invert, measure_x0_error, sample
from unclip.errors import CheckpointError, OptionError, TrainingError
from unclip.identity import ClipIdentity
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling, TextFeatures

RGB = 3


class DecoderConfig(Config):
    """The decoder; all defaults are the paper's."""

    size: int = 64
    """Side of its images, in pixels; of its latents, where a codec makes images of them."""
    network: DecoderNetworkConfig
    diffusion: DiffusionConfig = DiffusionConfig(target="noise", variance="learned_range")
    image_drop: float = Field(default=0.1, ge=0, le=1)
    """How often training hides z_i, from both its paths."""
    text_drop: float = Field(default=0.5, ge=0, le=1)
    """How often training hides the caption, independently."""
    first_noise: float = Field(default=1.0, gt=0)
    """Gain, in units of σ, of what the first step of an inversion adds to a picture, unless
    that is exact. More than 1 makes up for the noise that the steps lose between them near clean
    data, where a small network sees some of it alone: x_T deviates by 1 again."""
    coarse_noise: float = Field(default=1.0, gt=0)
    """That noise is given (this − 1) times its local mean, of 3 × 3 pixels, on top. More than 1
    makes up for a network that tells noise by what differs between neighbours, and takes what they
    share for data: neighbours in x_T are unlike each other by chance alone again."""
    clip: ClipIdentity | None = None
    """The CLIP it was trained on; None in checkpoints older than this record."""

    @model_validator(mode="after")
    def _check(self) -> "DecoderConfig":
        unet = self.network.unet
        outputs = self.channels * Process(self.diffusion).outputs
        if unet.out_channels != outputs:
            raise ValueError(
                f"network.unet has {unet.in_channels} channels in and {unet.out_channels} out; "
                f"with variance {self.diffusion.variance!r} set network.unet.out_channels={outputs}"
            )
        if self.size % unet.stride:
            raise ValueError(f"size {self.size} is not a multiple of the U-Net's {unet.stride}")
        return self

    @property
    def channels(self) -> int:
        """What it draws: 3 for pixels, more for latents."""
        return self.network.unet.in_channels


class Decoder(nn.Module):
    """P(x | z_i, y) as a diffusion model; either condition may be missing."""

    name: ClassVar[str] = "decoder"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "image_embedding", "text"})

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.network = DecoderNetwork(config.network)
        self.process = Process(config.diffusion)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Diffusion loss (hybrid with a learned variance), z_i and caption dropped at random."""
        images = batch.images
        assert images is not None
        self._check_pixels()
        assert images.shape[1:] == (RGB, self.config.size, self.config.size)
        drop_image, drop_text = self.draw_drops(randomness)
        condition = self.network.condition(
            batch.image_embedding,
            batch.text,
            drop_image.to(images.device),
            drop_text.to(images.device),
        )
        return diffusion_loss(self.process, self._bind(condition), images, randomness)

    def draw_drops(self, randomness: Randomness) -> tuple[Bool[Tensor, " b"], Bool[Tensor, " b"]]:
        """Which samples lose z_i, and which, independently, their caption."""
        drop_image = randomness.uniform() < self.config.image_drop
        return drop_image, randomness.uniform() < self.config.text_drop

    def sample(
        self,
        image_embedding: Float[Tensor, "b d"] | None,
        text: TextFeatures | None,
        options: SamplingOptions,
        randomness: Randomness,
        *,
        x_T: Float[Tensor, "b c h w"] | None = None,
        known: Known | None = None,
        size: tuple[int, int] | None = None,
    ) -> Sampling:
        """Draw an image for each sample of ``randomness``.

        Args:
            image_embedding: z_i; None leaves it out, so that the caption alone decides.
            text: captions; None leaves them out.
            options: how to walk, and the guidance scale. The unconditional pass has neither.
                ``start`` below 1 needs an x_T of that noise level.
            randomness: draws x_T and the noise of stochastic samplers.
            x_T: start from this instead, such as what `invert` found.
            known: a part of the images that is given (inpainting).
            size: height and width, where they differ from the config's ``size``.

        Returns:
            Images [b 3 h w], or latents, in float32, near [-1, 1]; the sampler's clipping keeps
            x̂0 inside.

        Raises:
            OptionError: options that do not fit the process, or ``start`` without ``x_T``.
            CheckpointError: the checkpoint lacks the encoding of the empty prompt.
        """
        if x_T is None and (options.start < 1 or options.skip):
            raise OptionError(
                f"start {options.start} and skip {options.skip} begin at a noised image, and the "
                "decoder begins at pure noise: leave start at 1 and skip at 0"
            )
        grid = self._grid(size)
        noise = randomness.normal(self.config.channels, *grid) if x_T is None else x_T
        noise = noise.to(self.device)
        network = self._denoiser(image_embedding, text, len(noise), options)
        return (
            yield from sample(
                self.process, network, noise, options, randomness, stage=self.name, known=known
            )
        )

    def invert(
        self,
        images: Float[Tensor, "b c h w"],
        image_embedding: Float[Tensor, "b d"] | None,
        text: TextFeatures | None,
        options: SamplingOptions,
        *,
        iterations: int = 0,
        noise: Float[Tensor, "b c h w"] | None = None,
    ) -> Sampling:
        """Find the x_T from which DDIM with these options makes ``images`` (§2).

        Args:
            images: in [-1, 1], or latents, of the decoder's size.
            image_embedding: their z_i.
            text: captions; the paper's inversion has none.
            options: the way back. Guidance should be 1: with it the way there is another.
            iterations: at most so many more evaluations a step, to make it exact.
            noise: of deviation 1; what the first, invisible step adds, by ``first_noise`` and
                ``coarse_noise``, so that flat pictures end as noise too.

        Returns:
            x_T [b c h w].
        """
        network = self._denoiser(image_embedding, text, len(images), options)
        x0 = images.to(self.device)
        scale = 1.0 if iterations else self.config.first_noise
        if noise is not None:
            noise = scale * _with_coarse(noise.to(self.device), self.config.coarse_noise)
        walk = invert(
            self.process,
            network,
            x0,
            options,
            stage="inversion",
            iterations=iterations,
            noise=noise,
        )
        return (yield from walk)

    def x0_error(
        self,
        images: Float[Tensor, "b c h w"],
        image_embedding: Float[Tensor, "b d"] | None,
        options: SamplingOptions,
        noise: Float[Tensor, "b c h w"],
    ) -> float:
        """What `SamplingOptions.x0_error` should be for these images, so that x_T is noise.

        A network that says the noise, or v, needs none: its ε̂ is no error of x̂0 over σ.
        """
        if self.config.diffusion.target != "x0":
            return 0.0
        network = self._denoiser(image_embedding, None, len(images), options)
        x0, noise = images.to(self.device), noise.to(self.device)
        return measure_x0_error(self.process, network, x0, options, noise)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def _bind(self, condition: Condition) -> Network:
        return lambda x_t, t: self.network(x_t, t, condition)

    def _denoiser(
        self,
        image_embedding: Float[Tensor, "b d"] | None,
        text: TextFeatures | None,
        count: int,
        options: SamplingOptions,
    ) -> Network:
        """The network with its condition bound, computed once, and guidance applied."""
        guides = options.guidance != 1
        self._check_stored(text=guides or text is None, image=guides or image_embedding is None)
        device = self.device
        if image_embedding is not None:
            image_embedding = image_embedding.to(device)
        text = text.to(device) if text is not None else None
        dropped = torch.zeros(count, dtype=torch.bool, device=device)
        if options.guidance == 1:
            return self._inference(self._condition(image_embedding, text, dropped))
        both = self._condition(
            None if image_embedding is None else image_embedding.repeat(2, 1),
            None if text is None else text.take(torch.arange(count).repeat(2)),
            torch.cat([dropped, ~dropped]),
        )
        return guided(
            self._inference(both.first(count)),
            self._inference(both),
            options.guidance,
            options.guidance_interval,
            mixed=self.config.channels,
            total=self.process.config.steps,
        )

    @torch.no_grad()
    def _condition(
        self,
        image_embedding: Float[Tensor, "b d"] | None,
        text: TextFeatures | None,
        dropped: Bool[Tensor, " b"],
    ) -> Condition:
        return self.network.condition(image_embedding, text, dropped, dropped)

    def _inference(self, condition: Condition) -> Network:
        bound = self._bind(condition)

        @torch.no_grad()
        def network(x_t: Tensor, t: Tensor) -> Tensor:
            return bound(x_t, t)

        return network

    def _check_stored(self, *, text: bool, image: bool) -> None:
        """Find out whether what stands in for a missing text or image was ever stored."""
        words, stored = self.network.text, self.network.image.stored
        if text and isinstance(words, ClipStatesGuidance) and not words.unconditional.measured:
            raise CheckpointError(
                "the decoder has no encoding of the empty prompt; give it to "
                "network.text.unconditional.store, or build the decoder with learned nulls"
            )
        if image and stored is not None and not stored.measured:
            raise CheckpointError(
                "the decoder has no embedding of an empty image; import it together with its CLIP"
            )

    def _check_pixels(self) -> None:
        if self.config.channels != RGB:
            raise TrainingError(
                f"this decoder draws latents of {self.config.channels} channels, which no dataset "
                "here holds; train one that draws pixels"
            )

    def _grid(self, size: tuple[int, int] | None) -> tuple[int, int]:
        """Height and width to draw.

        Raises:
            OptionError: the U-Net cannot halve them often enough.
        """
        stride = self.config.network.unet.stride
        height, width = size or (self.config.size, self.config.size)
        if height % stride or width % stride:
            raise OptionError(f"{width}×{height} are no multiples of the U-Net's {stride}")
        return height, width


def _with_coarse(noise: Float[Tensor, "b c h w"], gain: float) -> Float[Tensor, "b c h w"]:
    """Noise with (gain − 1) times its mean over each 3 × 3 pixels on top."""
    if gain == 1:
        return noise
    local = avg_pool2d(noise, 3, stride=1, padding=1, count_include_pad=False)
    return noise + (gain - 1) * local
