"""An upsampler (§1.6): enlarges images by diffusion, conditioned on nothing but the small image.

Binds a convolutional U-Net, the diffusion process and the low-res conditioning. It knows no
caption and no embedding, and is never guided.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.diffusion.guidance import HandedOver
from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.process import DiffusionConfig, Network, Process
from unclip.diffusion.samplers.repaint import Known
from unclip.diffusion.sampling import SamplingOptions, first_timestep, sample, sampling_grid
from unclip.errors import DataError
from unclip.nn.unet import UNet, UNetConfig
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling
from unclip.upsampler.degradation import Blur, Corruption, NoCorruption, degrade
from unclip.upsampler.resize import enlarge
from unclip.upsampler.tiles import padded, tiled


class UpsamplerConfig(Config):
    """An upsampler; the defaults are those of the paper's first, 64 → 256 px."""

    low: int = Field(default=64, ge=1)
    """Side of the images it is meant to enlarge. It takes any other size as well."""
    high: int = Field(default=256, ge=1)
    """Side of the images it draws from those."""
    network: UNetConfig
    """Without any attention; 6 input channels, the noisy image and then the enlarged one."""
    last_step: bool = False
    """Whether a second network of this shape takes a sampler's last step, as in Karlo: there it
    was fine-tuned for fidelity, with perceptual and adversarial losses."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """The paper's second upsampler has the linear schedule."""
    corruption: Corruption = Blur()
    """Of the low-res image in training. The paper's second upsampler has BSR."""
    training_crop: int = Field(default=64, ge=1)
    """Side of the high-res crops to train on; the paper's are a quarter of ``high``."""
    crop_candidates: int = Field(default=1, ge=1)
    """Places `choose_crop` considers for a crop; above 1 it prefers edges to blank areas."""

    @property
    def factor(self) -> int:
        """How many times larger the result is."""
        return self.high // self.low

    @model_validator(mode="after")
    def _check(self) -> "UpsamplerConfig":
        if self.high % self.low:
            raise ValueError(f"high {self.high} must be a multiple of low {self.low}")
        if self.training_crop % self.factor or self.training_crop > self.high:
            raise ValueError(
                f"training_crop {self.training_crop} must be a multiple of the factor "
                f"{self.factor} and no larger than {self.high}"
            )
        network = self.network
        if network.attention or network.middle_attention or network.context_width is not None:
            raise ValueError(
                "an upsampler has no attention; set the network's middle_attention to false and "
                "leave attention and context_width unset"
            )
        if network.in_channels != 6:
            raise ValueError("the network needs in_channels 6: noisy image and enlarged image")
        outputs = 3 * Process(self.diffusion).outputs
        if network.out_channels != outputs:
            raise ValueError(
                f"network has {network.out_channels} channels out; with variance "
                f"{self.diffusion.variance!r} set network.out_channels={outputs}"
            )
        return self


class Pair(nn.Module):
    """Two U-Nets of one shape: ``last`` takes a sampler's last step, ``first`` all before.

    The one whose turn it is not need not be in memory (it is on ``meta`` then).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.first = UNet(config)
        self.last = UNet(config)


class Upsampler(nn.Module):
    """Small image → large image, by diffusion."""

    name: ClassVar[str] = "upsampler"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        self.network = Pair(config.network) if config.last_step else UNet(config.network)
        self.process = Process(config.diffusion)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Diffusion loss of high-res crops given their shrunk, corrupted and enlarged selves.

        ``batch.images`` are crops in [-1, 1] whose sides are multiples of the factor. In
        evaluation mode nothing is corrupted. Of two networks the first is trained; the other has
        losses of its own.

        Raises:
            DataError: the crops cannot be shrunk evenly.
        """
        assert batch.images is not None
        high = batch.images.float()
        factor = self.config.factor
        if any(side % factor for side in high.shape[-2:]):
            height, width = high.shape[-2:]
            raise DataError(
                f"crops of {width}×{height} px (first: {batch.keys[0]}) cannot be shrunk "
                f"{factor} times; cut them at multiples of {factor}"
            )
        corruption = self.config.corruption if self.training else NoCorruption()
        low = degrade(high, factor, corruption, randomness.split("corruption"))
        return self.loss(high, low, randomness)

    def loss(
        self,
        high: Float[Tensor, "b 3 H W"],
        low: Float[Tensor, "b 3 h w"],
        randomness: Randomness,
    ) -> Losses:
        """Diffusion loss of pictures given smaller ones, however these were made."""
        network = self._conditioned(self._networks[0], enlarge(low, self.config.factor))
        return diffusion_loss(self.process, network, high, randomness)

    def sample(
        self,
        images: Float[Tensor, "b 3 h w"],
        options: SamplingOptions,
        randomness: Randomness,
        tile: int | None = None,
        known: Known | None = None,
    ) -> Sampling:
        """Enlarge images of any size; the paper's samplers are DDIM with 27 and 15 steps.

        With ``options.start`` below 1, sampling starts from the enlarged image with that much
        noise rather than from pure noise: few steps suffice, for less invention.

        Args:
            images: in [-1, 1].
            options: how to sample; guidance does not apply.
            randomness: one stream per image.
            tile: largest side, in pixels of the result, that the network sees at once, rounded
                to what the network can take. The predictions of overlapping tiles are blended
                at every step, so seams do not show; the picture differs a little from the
                untiled one where the network has GroupNorm, which then sees only the tile.
            known: a part of the result that is given, to which the rest is joined.

        Returns:
            Images [b 3 H W] in float32 (float64 if ``images`` are), as the sampler clips them.
        """
        device = next(part.device for part in self.network.parameters() if not part.is_meta)
        images = images.to(device).clamp(-1, 1)
        enlarged = enlarge(images, self.config.factor)
        x_T = randomness.normal(*enlarged.shape[1:]).to(enlarged)
        if options.start < 1:
            t = torch.full((len(images),), first_timestep(self.process, options))
            x_T = self.process.add_noise(enlarged, t, x_T)
        first, last = (
            torch.no_grad()(self._conditioned(network, enlarged, tile))
            for network in self._networks
        )
        cleanest = int(sampling_grid(self.process, options).timesteps[0])
        return (
            yield from sample(
                self.process,
                HandedOver(first, last, cleanest) if self.config.last_step else first,
                x_T,
                options,
                randomness,
                stage=f"{self.name} {self.config.high}",
                known=known,
            )
        )

    @property
    def _networks(self) -> tuple[UNet, UNet]:
        """For all steps but the last, and for the last."""
        if isinstance(self.network, Pair):
            return self.network.first, self.network.last
        return self.network, self.network

    def _conditioned(
        self, network: Network, enlarged: Float[Tensor, "b 3 h w"], tile: int | None = None
    ) -> Network:
        """Bind a network to the enlarged images: (x_t, t) → output."""
        stride = self.config.network.stride
        if tile is not None:
            # A quarter overlaps: half of that is blended, an eighth of a tile dropped each side.
            quarters = max(round(tile / (4 * stride)), 1)
            size = max(tile // stride, 2 * quarters) * stride
            network = tiled(network, size, quarters * stride, stride)
        network = padded(network, stride)
        return lambda x_t, t: network(torch.cat([x_t, enlarged], dim=1), t)
