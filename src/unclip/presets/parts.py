"""What a preset is, and the pieces that presets are put together from.

Prior and decoder take their embedding and text sizes from the CLIP they are trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from unclip.clip.clip import ClipConfig
from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.decoder.layout import LayoutConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.nn.caption_encoder import CaptionEncoderConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.options import GenerateOptions
from unclip.prior.autoregressive import AutoregressivePriorConfig
from unclip.prior.autoregressive_network import AutoregressiveNetworkConfig, FrozenTextConfig
from unclip.prior.diffusion_prior import DiffusionPriorConfig
from unclip.prior.kinds import PriorConfig
from unclip.prior.network import PriorNetworkConfig
from unclip.training.config import TrainingConfig
from unclip.upsampler.degradation import Corruption
from unclip.upsampler.upsampler import UpsamplerConfig


@dataclass(frozen=True)
class Preset:
    """Everything that has to be chosen before a cascade can be trained."""

    clip: ClipConfig
    prior: Callable[[ClipConfig], PriorConfig]
    autoregressive: Callable[[ClipConfig], PriorConfig]
    decoder: Callable[[ClipConfig], DecoderConfig]
    upsamplers: Mapping[int, UpsamplerConfig]
    training: Mapping[str, TrainingConfig]
    """By stage: clip, prior, prior-autoregressive, decoder, upsampler-256, upsampler-1024."""
    defaults: GenerateOptions
    """Sampling defaults of the models it trains."""

    def with_autoregressive(self) -> "Preset":
        """The same with the autoregressive prior, and its training, in the other's place."""
        training = {**self.training, "prior": self.training["prior-autoregressive"]}
        # How many to choose from and how far to guide was tried for the other.
        defaults = self.defaults.model_copy(
            update={"candidates": None, "prior": GenerateOptions().prior}
        )
        return replace(self, prior=self.autoregressive, training=training, defaults=defaults)


def prior(
    width: int, depth: int, heads: int, diffusion: DiffusionConfig, draws: int = 1
) -> Callable[[ClipConfig], DiffusionPriorConfig]:
    """The diffusion prior, a transformer of this size, for a CLIP."""

    def build(clip: ClipConfig) -> DiffusionPriorConfig:
        return DiffusionPriorConfig(
            network=PriorNetworkConfig(
                embedding=clip.embedding,
                text_width=clip.text_tower().width,
                context=clip.text_tower().context,
                transformer=TransformerConfig(width=width, depth=depth, heads=heads),
            ),
            diffusion=diffusion,
            draws=draws,
        )

    return build


def autoregressive(
    components: int, buckets: int, size: TransformerConfig, text: TransformerConfig | None = None
) -> Callable[[ClipConfig], AutoregressivePriorConfig]:
    """The autoregressive prior for a CLIP.

    ``text`` is the caption encoder; without one the prior reads CLIP's text states.
    """

    def build(clip: ClipConfig) -> AutoregressivePriorConfig:
        words = _encoder(clip, text) if text else FrozenTextConfig(width=clip.text_tower().width)
        return AutoregressivePriorConfig(
            network=AutoregressiveNetworkConfig(
                embedding=clip.embedding,
                components=min(components, clip.embedding),
                buckets=buckets,
                text=words,
                transformer=size,
            )
        )

    return build


def _encoder(clip: ClipConfig, size: TransformerConfig) -> CaptionEncoderConfig:
    return CaptionEncoderConfig(
        vocabulary=clip.text_tower().vocabulary, context=clip.caption_context, transformer=size
    )


def decoder(
    unet: UNetConfig,
    text: TransformerConfig | None,
    *,
    size: int = 64,
    diffusion: DiffusionConfig | None = None,
    text_drop: float = 0.5,
    layout: LayoutConfig | None = None,
    first_noise: float = 1.0,
    coarse_noise: float = 1.0,
) -> Callable[[ClipConfig], DecoderConfig]:
    """The decoder for a CLIP.

    ``text`` is the caption encoder; without one the decoder reads CLIP's text states.
    """

    def build(clip: ClipConfig) -> DecoderConfig:
        words = _encoder(clip, text) if text else ClipStatesConfig(states=clip.text_tower().width)
        return DecoderConfig(
            size=size,
            network=DecoderNetworkConfig(
                unet=unet,
                embedding=clip.embedding,
                image=ImageEmbeddingConfig(layout=layout),
                text=words,
            ),
            diffusion=diffusion or DiffusionConfig(variance="learned_range"),
            text_drop=text_drop,
            first_noise=first_noise,
            coarse_noise=coarse_noise,
        )

    return build


def small_unet(
    channels: int,
    multipliers: tuple[int, ...],
    depth: int,
    patch: int,
    context: int | None,
    outputs: int = 3,
    bandwidths: tuple[float, ...] = (),
) -> UNetConfig:
    """A U-Net for small machines: patches, few groups, attention where the grid is small."""
    return UNetConfig(
        in_channels=3 if context else 6,
        out_channels=outputs,
        channels=channels,
        multipliers=multipliers,
        depth=depth,
        attention=(2 ** (len(multipliers) - 1),) if context else (),
        middle_attention=context is not None,
        context_width=context,
        head_channels=32,
        groups=max(1, channels // 16),
        patch=patch,
        bandwidths=bandwidths,
    )


def upsampler(
    low: int,
    network: UNetConfig,
    diffusion: DiffusionConfig,
    corruption: Corruption,
    crop: int,
    candidates: int = 1,
) -> UpsamplerConfig:
    """Four times ``low``, trained on the busiest of ``candidates`` crops of ``crop`` pixels."""
    return UpsamplerConfig(
        low=low,
        high=4 * low,
        network=network,
        diffusion=diffusion,
        corruption=corruption,
        training_crop=crop,
        crop_candidates=candidates,
    )


X0 = DiffusionConfig(target="x0")
PATCHED = DiffusionConfig(target="v", data_scale=0.15)
"""For networks that see patches. All noise of a patch, 48 numbers and more, fits through no small
width, so where noise prevails they say x0; where it does not, what they were given stays."""
