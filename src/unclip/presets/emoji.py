"""`emoji` and `emoji-gpu`: the default model, for a laptop and for a data-centre GPU."""

from collections.abc import Mapping

from unclip.clip.clip import ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.decoder.layout import LayoutConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.options import GenerateOptions
from unclip.presets.parts import (
    PATCHED,
    X0,
    Preset,
    autoregressive,
    decoder,
    prior,
    small_unet,
    upsampler,
)
from unclip.training.config import TrainingConfig
from unclip.upsampler.bsr import Bsr
from unclip.upsampler.degradation import Blur


def _emoji(unet: UNetConfig, training: Mapping[str, TrainingConfig]) -> Preset:
    """The default model; its decoder and how long it is trained depend on the machine."""
    return Preset(
        clip=ClipConfig(
            image=ViTConfig(size=64, patch=8, width=192, depth=5, heads=3),
            text=TextConfig(context=32, width=192, depth=3, heads=3, vocabulary=3072),
            embedding=256,
            caption_context=48,
            thumbnail=32,
            thumbnail_weight=2.0,
            planned_batch=training["clip"].batch,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
        prior=prior(192, 5, 3, X0, draws=8),
        autoregressive=autoregressive(64, 256, TransformerConfig(width=192, depth=5, heads=3)),
        decoder=decoder(
            unet,
            None,
            diffusion=PATCHED,
            text_drop=0.15,
            layout=LayoutConfig(side=16, channels=8),
            first_noise=1.3,
            coarse_noise=1.8,
        ),
        upsamplers={
            256: upsampler(64, small_unet(64, (1, 1), 1, 4, None), PATCHED, Blur(), 64, 4),
            1024: upsampler(
                256, small_unet(64, (1,), 1, 4, None), PATCHED, Bsr(probability=0.5), 128, 4
            ),
        },
        training=training,
        defaults=GenerateOptions(
            candidates=4,
            prior=SamplingOptions(sampler="dpm++", steps=16, guidance=3.0, clip="none"),
            decoder=SamplingOptions(
                sampler="dpm++", steps=14, guidance=3.0, guidance_interval=(0.1, 0.9), end=0.12
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


BANDWIDTHS = (0.03, 0.15)
"""Of what the exit reads beside its input: σ/α of the first level is 0.006, at a twentieth 0.09."""

EMOJI = _emoji(
    small_unet(96, (1, 1), 2, 4, context=192, bandwidths=BANDWIDTHS),
    {
        "clip": _emoji_training(3000, 512, 1.5e-3, 100),
        "prior": _emoji_training(2400, 128, 1.5e-3, 100),
        "prior-autoregressive": _emoji_training(1200, 256, 1.5e-3, 100),
        "decoder": _emoji_training(20_000, 64, 1.5e-3, 200),
        "upsampler-256": _emoji_training(1500, 32, 1.5e-3, 50),
        "upsampler-1024": _emoji_training(1500, 16, 1.5e-3, 50),
    },
)
"""For two CPU cores: about five hours in all, three of them for the decoder."""

EMOJI_GPU = _emoji(
    small_unet(64, (1, 2, 2), 2, 2, context=192, bandwidths=BANDWIDTHS),
    {
        "clip": _emoji_training(12_000, 1024, 1e-3, 500),
        "prior": _emoji_training(10_000, 1024, 6e-4, 500),
        "prior-autoregressive": _emoji_training(10_000, 1024, 6e-4, 500),
        "decoder": _emoji_training(16_000, 256, 6e-4, 500),
        "upsampler-256": _emoji_training(10_000, 128, 6e-4, 300),
        "upsampler-1024": _emoji_training(5_000, 64, 6e-4, 300),
    },
)
"""For a data-centre GPU: patches of 2 pixels, and 3 (decoder) to 33 (prior) times the images."""
