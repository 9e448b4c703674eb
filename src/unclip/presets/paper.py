"""`paper`: Table 3, column by column."""

from math import log

from unclip.clip.architectures import architecture
from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.options import GenerateOptions
from unclip.presets.parts import Preset, autoregressive, decoder, prior, upsampler
from unclip.training.config import TrainingConfig
from unclip.upsampler.bsr import Bsr
from unclip.upsampler.degradation import Blur


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
    prior=prior(2048, 24, 32, DiffusionConfig(target="x0", variance="analytic")),
    autoregressive=autoregressive(
        319,
        1024,
        TransformerConfig(width=1664, depth=24, heads=26),
        TransformerConfig(width=2048, depth=24, heads=32),
    ),
    decoder=decoder(
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
        256: upsampler(64, _adm(320, 3, (1, 2, 3, 4), 0.1), DiffusionConfig(), Blur(), 64),
        1024: upsampler(
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
