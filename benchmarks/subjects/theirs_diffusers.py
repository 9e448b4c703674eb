"""diffusers' side: its U-Net in Karlo's layout, and its schedulers."""

from typing import Any

import diffusers
import torch

from subjects.random_weights import build, describe

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def unet(channels: int, depth: int, context: int) -> diffusers.UNet2DConditionModel:
    """The classes and options of Karlo's converter, at any width and depth."""
    return diffusers.UNet2DConditionModel(
        sample_size=64,
        in_channels=3,
        out_channels=6,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
        only_cross_attention=False,
        block_out_channels=tuple(multiple * channels for multiple in (1, 2, 3, 4)),
        layers_per_block=depth,
        norm_eps=1e-5,
        cross_attention_dim=context,
        attention_head_dim=64,
        class_embed_type="identity",
        resnet_time_scale_shift="scale_shift",
    )


class DecoderForward:
    """One evaluation of the decoder's U-Net; inputs in the network's own dtype."""

    def __init__(
        self,
        channels: int,
        depth: int,
        context: int,
        batch: int,
        precision: str = "fp32",
        channels_last: bool = False,
    ) -> None:
        dtype = DTYPES[precision]
        self.network = build(lambda: unet(channels, depth, context), dtype, channels_last)
        memory = torch.channels_last if channels_last else torch.contiguous_format
        self.x = torch.randn(batch, 3, 64, 64, dtype=dtype).to(memory_format=memory)
        self.embedding = torch.randn(batch, 4 * channels, dtype=dtype)
        self.tokens = torch.randn(batch, 81, context, dtype=dtype)
        self.mask = torch.arange(81) < torch.tensor([[20], [6]]).repeat(batch // 2, 1)

    def facts(self) -> dict[str, Any]:
        """What was built."""
        return describe(self.network) | {"input": list(self.x.shape)}

    @torch.no_grad()
    def run(self) -> None:
        """Evaluate once."""
        self.network(
            self.x,
            500,
            encoder_hidden_states=self.tokens,
            class_labels=self.embedding,
            encoder_attention_mask=self.mask,
        )


SCHEDULERS = {
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": True}),
    "dpm++": (diffusers.DPMSolverMultistepScheduler, {"use_lu_lambdas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "ancestral": (diffusers.UnCLIPScheduler, {"variance_type": "learned_range"}),
}


def scheduler(sampler: str) -> Any:
    """A scheduler with the cosine schedule and x0 clipped to ±1, where it can clip."""
    kind, options = SCHEDULERS[sampler]
    if sampler != "ancestral":
        options = options | {"beta_schedule": "squaredcos_cap_v2"}
    if sampler in ("dpm++", "unipc"):
        options = options | {"thresholding": False}
    return kind(**options)


class SamplerLoop:
    """A scheduler around a network that costs nothing, as pipelines drive it."""

    def __init__(self, sampler: str, steps: int, variance: str, batch: int) -> None:
        self.scheduler = scheduler(sampler)
        self.steps = steps
        self.x = torch.randn(batch, 3, 64, 64)
        channels = 6 if variance == "learned_range" else 3
        self.output = torch.randn(batch, channels, 64, 64)

    def facts(self) -> dict[str, Any]:
        """How long the walk is, and by which class."""
        name = type(self.scheduler).__name__
        return {"steps": self.steps, "input": list(self.x.shape), "scheduler": name}

    @torch.no_grad()
    def run(self) -> None:
        """Walk once."""
        x = self.x
        self.scheduler.set_timesteps(self.steps)
        for t in self.scheduler.timesteps:
            x = self.scheduler.step(self.output, t, x).prev_sample


class GuidedSampling:
    """A whole sampling of a small decoder with guidance, both halves in one pass."""

    def __init__(
        self,
        channels: int,
        depth: int,
        steps: int,
        batch: int,
        precision: str = "fp32",
        channels_last: bool = False,
    ) -> None:
        dtype = DTYPES[precision]
        self.network = build(lambda: unet(channels, depth, 512), dtype, channels_last)
        self.scheduler = scheduler("dpm++")
        self.steps, self.batch, self.dtype = steps, batch, dtype
        self.embedding = torch.randn(2 * batch, 4 * channels, dtype=dtype)
        self.tokens = torch.randn(2 * batch, 81, 512, dtype=dtype)
        self.mask = (torch.arange(81) < 24).expand(2 * batch, 81)

    def facts(self) -> dict[str, Any]:
        """What was built."""
        return describe(self.network) | {"images": self.batch, "steps": self.steps}

    @torch.no_grad()
    def run(self) -> None:
        """Draw the images."""
        x = torch.randn(self.batch, 3, 64, 64, dtype=self.dtype)
        self.scheduler.set_timesteps(self.steps)
        for t in self.scheduler.timesteps:
            output = self.network(
                torch.cat([x, x]),
                t,
                encoder_hidden_states=self.tokens,
                class_labels=self.embedding,
                encoder_attention_mask=self.mask,
            ).sample[:, :3]
            unconditional, conditional = output.chunk(2)
            noise = unconditional + 3.0 * (conditional - unconditional)
            x = self.scheduler.step(noise, t, x).prev_sample
