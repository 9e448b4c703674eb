"""Named sizes and training recipes: `tiny` for tests, `emoji` for a laptop, `paper` for Table 3.

A preset says how each stage is built, trained and sampled. Prior and decoder take their
embedding and text sizes from the CLIP they are trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import log

from unclip.clip.architectures import architecture
from unclip.clip.clip import ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.decoder.layout import LayoutConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.errors import OptionError
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
from unclip.upsampler.bsr import Bsr
from unclip.upsampler.degradation import Blur, Corruption
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
        return replace(self, prior=self.autoregressive, training=training)


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in PRESETS:
        raise OptionError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]


def _prior(
    width: int, depth: int, heads: int, diffusion: DiffusionConfig
) -> Callable[[ClipConfig], DiffusionPriorConfig]:
    def build(clip: ClipConfig) -> DiffusionPriorConfig:
        return DiffusionPriorConfig(
            network=PriorNetworkConfig(
                embedding=clip.embedding,
                text_width=clip.text_tower().width,
                context=clip.text_tower().context,
                transformer=TransformerConfig(width=width, depth=depth, heads=heads),
            ),
            diffusion=diffusion,
        )

    return build


def _autoregressive(
    components: int, buckets: int, size: TransformerConfig, text: TransformerConfig | None = None
) -> Callable[[ClipConfig], AutoregressivePriorConfig]:
    """``text`` is the caption encoder; without one the prior reads CLIP's text states."""

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


def _decoder(
    unet: UNetConfig,
    text: TransformerConfig | None,
    *,
    size: int = 64,
    diffusion: DiffusionConfig | None = None,
    text_drop: float = 0.5,
    layout: LayoutConfig | None = None,
) -> Callable[[ClipConfig], DecoderConfig]:
    """``text`` is the caption encoder; without one the decoder reads CLIP's text states."""

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
        )

    return build


def _small_unet(
    channels: int,
    multipliers: tuple[int, ...],
    depth: int,
    patch: int,
    context: int | None,
    outputs: int = 3,
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
    )


def _upsampler(
    low: int,
    network: UNetConfig,
    diffusion: DiffusionConfig,
    corruption: Corruption,
    crop: int,
    candidates: int = 1,
) -> UpsamplerConfig:
    return UpsamplerConfig(
        low=low,
        high=4 * low,
        network=network,
        diffusion=diffusion,
        corruption=corruption,
        training_crop=crop,
        crop_candidates=candidates,
    )


_X0 = DiffusionConfig(target="x0")
_X0_WEIGHTED = DiffusionConfig(target="x0", weighting="min_snr")
"""For networks that see patches: noise of a patch's 48 numbers and more fits through no small
width, a clean patch does."""

TINY = Preset(
    clip=ClipConfig(
        image=ViTConfig(size=32, patch=8, width=32, depth=2, heads=2),
        text=TextConfig(context=16, width=32, depth=2, heads=2, vocabulary=512),
        embedding=32,
        caption_context=24,
        loss="sigmoid",
        planned_batch=8,
    ),
    prior=_prior(32, 2, 2, _X0),
    autoregressive=_autoregressive(8, 8, TransformerConfig(width=32, depth=2, heads=2)),
    decoder=_decoder(
        _small_unet(32, (1, 2), 1, 4, context=32, outputs=6),
        TransformerConfig(width=32, depth=1, heads=2),
    ),
    upsamplers={
        256: _upsampler(64, _small_unet(32, (1,), 1, 4, None), _X0_WEIGHTED, Blur(), 64),
        1024: _upsampler(256, _small_unet(32, (1,), 1, 8, None), _X0_WEIGHTED, Bsr(), 64),
    },
    training={
        name: TrainingConfig(steps=steps, batch=8, lr=1e-3, warmup=5, log_every=5)
        for name, steps in (
            ("clip", 20),
            ("prior", 20),
            ("prior-autoregressive", 20),
            ("decoder", 20),
            ("upsampler-256", 10),
            ("upsampler-1024", 10),
        )
    },
    defaults=GenerateOptions(
        prior=SamplingOptions(sampler="dpm++", steps=4, clip="none"),
        decoder=SamplingOptions(sampler="ddim", steps=4, guidance=2.0),
        upsampler={
            "256": SamplingOptions(sampler="ddim", steps=2, start=0.5),
            "1024": SamplingOptions(sampler="ddim", steps=2, start=0.5),
        },
    ),
)


def _emoji(unet: UNetConfig, training: Mapping[str, TrainingConfig]) -> Preset:
    """The default model; its decoder and how long it is trained depend on the machine."""
    return Preset(
        clip=ClipConfig(
            image=ViTConfig(size=64, patch=8, width=192, depth=5, heads=3, keep=0.5),
            text=TextConfig(context=32, width=192, depth=3, heads=3, vocabulary=3072),
            embedding=256,
            caption_context=48,
            thumbnail=16,
            planned_batch=training["clip"].batch,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        prior=_prior(192, 5, 3, _X0),
        autoregressive=_autoregressive(64, 256, TransformerConfig(width=192, depth=5, heads=3)),
        decoder=_decoder(
            unet,
            None,
            diffusion=_X0,
            text_drop=0.15,
            layout=LayoutConfig(),
        ),
        upsamplers={
            256: _upsampler(64, _small_unet(64, (1, 1), 1, 4, None), _X0_WEIGHTED, Blur(), 64, 4),
            1024: _upsampler(256, _small_unet(48, (1,), 1, 8, None), _X0_WEIGHTED, Bsr(), 128, 4),
        },
        training=training,
        defaults=GenerateOptions(
            prior=SamplingOptions(sampler="dpm++", steps=16, guidance=2.0, clip="none"),
            decoder=SamplingOptions(
                sampler="dpm++", steps=16, guidance=2.5, guidance_interval=(0.1, 0.9)
            ),
            upsampler={
                "256": SamplingOptions(sampler="ddim", steps=3, start=0.4),
                "1024": SamplingOptions(sampler="ddim", steps=2, start=0.3),
            },
        ),
    )


def _emoji_training(steps: int, batch: int, lr: float, warmup: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        optimizer="muon",
        betas=(0.9, 0.99),
        weight_decay=0.05,
        schedule="cosine",
        log_every=20,
        save_every=250,
        preview_every=500,
    )


EMOJI = _emoji(
    _small_unet(96, (1, 1), 2, 4, context=192),
    {
        "clip": _emoji_training(1500, 512, 1.5e-3, 100),
        "prior": _emoji_training(1200, 256, 1.5e-3, 100),
        "prior-autoregressive": _emoji_training(1200, 256, 1.5e-3, 100),
        "decoder": _emoji_training(4500, 64, 1.5e-3, 200),
        "upsampler-256": _emoji_training(2000, 32, 1e-3, 50),
        "upsampler-1024": _emoji_training(800, 16, 1e-3, 30),
    },
)
"""For two CPU cores: about two hours in all, one of them for the decoder."""

EMOJI_GPU = _emoji(
    _small_unet(64, (1, 2, 2), 2, 2, context=192),
    {
        "clip": _emoji_training(12_000, 1024, 1e-3, 500),
        "prior": _emoji_training(10_000, 1024, 6e-4, 500),
        "prior-autoregressive": _emoji_training(10_000, 1024, 6e-4, 500),
        "decoder": _emoji_training(16_000, 256, 6e-4, 500),
        "upsampler-256": _emoji_training(10_000, 128, 6e-4, 300),
        "upsampler-1024": _emoji_training(5_000, 64, 6e-4, 300),
    },
)
"""For a data-centre GPU: patches of 2 pixels instead of 4, and about twenty times the images."""


def _table_3(
    batch: int, thousands: int, lr: float, beta2: float, eps: float, ema: float, decay: float = 0.0
) -> TrainingConfig:
    """A column of Table 3; warm-up and clipping are not stated there (§1.7)."""
    return TrainingConfig(
        steps=thousands * 1000,
        batch=batch,
        lr=lr,
        betas=(0.9, beta2),
        eps=eps,
        weight_decay=decay,
        warmup=2000,
        ema_half_life=batch * log(0.5) / log(ema),
    )


def _adm(channels: int, depth: int, multipliers: tuple[int, ...], dropout: float) -> UNetConfig:
    """The paper's upsamplers: ADM without any attention (§1.6)."""
    return UNetConfig(
        in_channels=6,
        out_channels=3,
        channels=channels,
        multipliers=multipliers,
        depth=depth,
        middle_attention=False,
        dropout=dropout,
    )


PAPER = Preset(
    clip=architecture("ViT-H/16"),
    prior=_prior(2048, 24, 32, DiffusionConfig(target="x0", variance="analytic")),
    autoregressive=_autoregressive(
        319,
        1024,
        TransformerConfig(width=1664, depth=24, heads=26),
        TransformerConfig(width=2048, depth=24, heads=32),
    ),
    decoder=_decoder(
        UNetConfig(
            in_channels=3,
            out_channels=6,
            channels=512,
            multipliers=(1, 2, 3, 4),
            depth=3,
            attention=(2, 4, 8),
            context_width=2048,
            dropout=0.1,
        ),
        TransformerConfig(width=2048, depth=24, heads=32),
    ),
    upsamplers={
        256: _upsampler(64, _adm(320, 3, (1, 2, 3, 4), 0.1), DiffusionConfig(), Blur(), 64),
        1024: _upsampler(
            256,
            _adm(192, 2, (1, 1, 2, 2, 4, 4), 0.0),
            DiffusionConfig(schedule="linear"),
            Bsr(),
            256,
        ),
    },
    training={
        "clip": TrainingConfig(
            steps=32 * 400_000_000 // 32_768,
            batch=32_768,
            lr=3e-4,
            betas=(0.9, 0.98),
            eps=1e-6,
            weight_decay=0.2,
            warmup=2000,
            schedule="cosine",
            sam_radius=0.1,
        ),
        "prior": _table_3(4096, 600, 1.1e-4, 0.96, 1e-6, 0.9999, decay=6.0e-2),
        "prior-autoregressive": _table_3(4096, 1000, 1.6e-4, 0.91, 1e-10, 0.999, decay=4.0e-2),
        "decoder": _table_3(2048, 800, 1.2e-4, 0.999, 1e-8, 0.9999),
        "upsampler-256": _table_3(1024, 1000, 1.2e-4, 0.999, 1e-8, 0.9999),
        "upsampler-1024": _table_3(512, 1000, 1.0e-4, 0.999, 1e-8, 0.9999),
    },
    defaults=GenerateOptions(
        prior=SamplingOptions(sampler="ancestral", steps=64, clip="none"),
        decoder=SamplingOptions(sampler="ancestral", steps=250, guidance=1.25),
        upsampler={
            "256": SamplingOptions(sampler="ddim", steps=27),
            "1024": SamplingOptions(sampler="ddim", steps=15),
        },
    ),
)

PRESETS = {"tiny": TINY, "emoji": EMOJI, "emoji-gpu": EMOJI_GPU, "paper": PAPER}
