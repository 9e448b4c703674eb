"""`tiny`: random pictures in a second, for tests."""

from unclip.clip.clip import ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.nn.transformer import TransformerConfig
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

TINY = Preset(
    clip=ClipConfig(
        image=ViTConfig(size=32, patch=8, width=32, depth=2, heads=2),
        text=TextConfig(context=16, width=32, depth=2, heads=2, vocabulary=512),
        embedding=32,
        caption_context=24,
        loss="sigmoid",
        planned_batch=8,
    ),
    prior=prior(32, 2, 2, X0),
    autoregressive=autoregressive(8, 8, TransformerConfig(width=32, depth=2, heads=2)),
    decoder=decoder(
        small_unet(32, (1, 2), 1, 4, context=32, outputs=6),
        TransformerConfig(width=32, depth=1, heads=2),
    ),
    upsamplers={
        256: upsampler(64, small_unet(32, (1,), 1, 4, None), PATCHED, Blur(), 64),
        1024: upsampler(256, small_unet(32, (1,), 1, 8, None), PATCHED, Bsr(), 64),
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
