"""Our side of every comparison."""

import subprocess
import sys
import tempfile
from typing import Any

import torch

import unclip
from subjects import random_karlo
from subjects.random_weights import build, describe
from unclip.decoder.conditioning import ClipStatesConfig
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.decoder.network import DecoderNetwork, DecoderNetworkConfig
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample
from unclip.nn.unet import UNet, UNetConfig
from unclip.options import GenerateOptions
from unclip.randomness import Randomness
from unclip.runtime import Runtime, choose_runtime, place
from unclip.training.config import TrainingConfig
from unclip.training.ema import Ema, ema_decay
from unclip.training.optimizer import build_optimizer
from unclip.types import Batch, TextFeatures, finish


def unet_config(channels: int, depth: int, context: int, outputs: int = 6) -> UNetConfig:
    """Karlo's layout at any width and depth; at 320 and 3 it is Karlo's decoder."""
    return UNetConfig(
        in_channels=3,
        out_channels=outputs,
        channels=channels,
        multipliers=(1, 2, 3, 4),
        depth=depth,
        attention=(2, 4, 8),
        context_width=context,
    )


def runtime_of(precision: str | None) -> Runtime:
    """What we choose by default, or what is asked for."""
    return choose_runtime("cpu", precision)


class DecoderForward:
    """One evaluation of the decoder's U-Net, as a sampler asks for it: float32 in and out."""

    def __init__(
        self, channels: int, depth: int, context: int, batch: int, precision: str | None = None
    ) -> None:
        runtime = runtime_of(precision)
        config = unet_config(channels, depth, context)
        self.network = build(lambda: UNet(config), runtime.dtype, runtime.channels_last)
        self.about = describe(self.network)
        place(self.network, runtime)
        self.x = torch.randn(batch, 3, 64, 64)
        self.t = torch.full((batch,), 500)
        self.embedding = torch.randn(batch, config.embedding_width)
        mask = torch.arange(81) < torch.tensor([[20], [6]]).repeat(batch // 2, 1)
        tokens = torch.randn(batch, 81, context)
        with torch.no_grad():
            self.context = self.network.prepare_context(tokens, mask)

    def facts(self) -> dict[str, Any]:
        """What was built."""
        return self.about | {"input": list(self.x.shape)}

    @torch.no_grad()
    def run(self) -> None:
        """Evaluate once."""
        self.network(self.x, self.t, self.embedding, self.context)


class TrainingStep:
    """Forward, backward, clipping, AdamW and EMA of a decoder, as the trainer does them."""

    def __init__(self, channels: int, depth: int, batch: int, precision: str | None = None) -> None:
        self.runtime = runtime_of(precision)
        text = ClipStatesConfig(states=512)
        unet = unet_config(channels, depth, 512)
        network = DecoderNetworkConfig(unet=unet, embedding=512, text=text)
        decoder = Decoder(DecoderConfig(network=network, text_drop=0.5, image_drop=0.1))
        self.decoder = place(decoder, self.runtime, training=True).train()
        self.config = TrainingConfig(steps=1000, batch=batch, lr=1e-4, clip_norm=1.0)
        self.optimizer = build_optimizer(self.decoder, self.config)
        self.ema = Ema(self.decoder)
        self.step = 0
        mask = torch.arange(77).expand(batch, 77) < 20
        self.batch = Batch(
            keys=tuple(str(i) for i in range(batch)),
            images=torch.rand(batch, 3, 64, 64) * 2 - 1,
            image_embedding=torch.nn.functional.normalize(torch.randn(batch, 512), dim=-1),
            text=TextFeatures(
                embedding=torch.nn.functional.normalize(torch.randn(batch, 512), dim=-1),
                states=torch.randn(batch, 77, 512),
                mask=mask,
                caption=torch.zeros(batch, 77, dtype=torch.long),
                caption_mask=mask,
            ),
        )

    def facts(self) -> dict[str, Any]:
        """What was built, and what it computes in."""
        computes = str(self.runtime.dtype).removeprefix("torch.")
        return describe(self.decoder) | {"batch": len(self.batch), "computes_in": computes}

    def run(self) -> None:
        """Train on the same batch once more."""
        count = len(self.batch)
        randomness = Randomness.for_step(0, self.step, 0, count)
        with self.runtime.autocast():
            losses = self.decoder(self.batch, randomness)
        losses["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), self.config.clip_norm or 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seen = self.step * count
        self.ema.update(self.decoder, ema_decay(count, seen, 1e6, self.config.ema_ramp))


class SamplerLoop:
    """A sampler around a network that costs nothing."""

    def __init__(self, sampler: str, steps: int, variance: str, clip: str, batch: int) -> None:
        self.process = Process(DiffusionConfig(variance=variance))
        self.options = SamplingOptions(sampler=sampler, steps=steps, clip=clip)
        channels = 3 * self.process.outputs
        self.x = torch.randn(batch, 3, 64, 64)
        self.output = torch.randn(batch, channels, 64, 64)

    def facts(self) -> dict[str, Any]:
        """How long the walk is."""
        return {"steps": self.options.steps, "input": list(self.x.shape)}

    def run(self) -> None:
        """Walk once."""
        randomness = Randomness(range(len(self.x)))
        network = lambda x_t, t: self.output  # noqa: E731
        finish(sample(self.process, network, self.x, self.options, randomness, stage="trivial"))


class GuidedSampling:
    """A whole sampling of a small decoder with guidance."""

    def __init__(
        self, channels: int, depth: int, steps: int, batch: int, precision: str | None = None
    ) -> None:
        runtime = runtime_of(precision)
        text = ClipStatesConfig(states=512)
        network = DecoderNetworkConfig(
            unet=unet_config(channels, depth, 512), embedding=512, text=text
        )
        self.decoder = Decoder(DecoderConfig(network=network))
        self.decoder.network = build(
            lambda: DecoderNetwork(network), runtime.dtype, runtime.channels_last
        )
        self.about = describe(self.decoder.network)
        place(self.decoder, runtime)
        self.options = SamplingOptions(sampler="dpm++", steps=steps, guidance=3.0)
        mask = torch.arange(77).expand(batch, 77) < 20
        self.z_i = torch.nn.functional.normalize(torch.randn(batch, 512), dim=-1)
        self.text = TextFeatures(
            embedding=self.z_i,
            states=torch.randn(batch, 77, 512),
            mask=mask,
            caption=torch.zeros(batch, 77, dtype=torch.long),
            caption_mask=mask,
        )

    def facts(self) -> dict[str, Any]:
        """What was built."""
        return self.about | {"images": len(self.z_i), "steps": self.options.steps}

    def run(self) -> None:
        """Draw the images."""
        randomness = Randomness(range(len(self.z_i)))
        finish(self.decoder.sample(self.z_i, self.text, self.options, randomness))


class KarloPipeline:
    """`unclip.load(…).stream(…)` on the whole of Karlo, a step at a time.

    Stages are loaded when their turn comes and let go of after it, as always at this size; that
    time is in the steps.
    """

    def __init__(self, steps: list[int], small: bool) -> None:
        folder = "emoji" if small else random_karlo.write_named("random-karlo-fp16")
        self.model = unclip.load(folder)
        self.steps = steps
        prior, decoder, upsampler = ({"steps": count} for count in steps)
        options = GenerateOptions.model_validate(
            {"size": 256, "prior": prior, "decoder": decoder, "upsampler": {"256": upsampler}}
        )
        self.walk = self.model.stream("a red apple", options)
        self.left = sum(steps)

    def facts(self) -> dict[str, Any]:
        """What is run, and what it computes in."""
        dtype = str(self.model.runtime.dtype).removeprefix("torch.")
        return {"steps": self.steps, "dtype": dtype, "threads": torch.get_num_threads()}

    def run(self) -> None:
        """One step; after the last, all that is left to do."""
        next(self.walk)
        self.left -= 1
        if self.left == 0:
            rest = list(self.walk)
            assert not rest, f"{len(rest)} steps too many"


class Generate:
    """The command line from the start of its process to images on disk.

    Args:
        model: a name or folder; ``random-karlo-fp16`` and ``-fp32`` are written when first used.
        images: how many.
        steps: of each stage; the model's own if not given.
        precision: bf16 or fp32; what suits the machine if not given.
    """

    def __init__(
        self,
        model: str,
        images: int = 4,
        steps: int | None = None,
        precision: str | None = None,
    ) -> None:
        self.command = [sys.executable, "-m", "unclip", "generate", "a red apple"]
        self.command += ["-n", str(images), "--size", "256"]
        if precision is not None:
            self.command += ["--precision", precision]
        if steps is not None:
            for stage in ("prior", "decoder", "upsampler.256"):
                self.command += [f"--{stage}.steps", str(steps)]
        self.model = model
        folder = random_karlo.write_named(model) if model in random_karlo.NAMES else model
        self.command += ["--model", str(folder), "--output"]

    def facts(self) -> dict[str, Any]:
        """The command."""
        return {"command": " ".join(["unclip", *self.command[3:-2], self.model])}

    def run(self) -> None:
        """Draw them into a folder that is then deleted."""
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([*self.command, folder], check=True, stdout=subprocess.DEVNULL)
