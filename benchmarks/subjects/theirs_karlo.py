"""diffusers' pipeline for Karlo at full size with random weights, one step at a time."""

import functools
import threading
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from tokenizers import pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from subjects.random_weights import build, describe, fill
from subjects.theirs_diffusers import DTYPES, unet

CONTEXT = 77


class KarloPipeline:
    """`UnCLIPPipeline.__call__`, stopped after every step of its schedulers."""

    def __init__(
        self, steps: list[int], small: bool, precision: str = "fp32", channels_last: bool = False
    ) -> None:
        dtype = DTYPES[precision]
        parts = components(64 if small else 320, small, dtype, channels_last)
        self.pipeline = diffusers.UnCLIPPipeline(**parts)
        self.pipeline.set_progress_bar_config(disable=True)
        self.steps = steps
        self.left = sum(steps)
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.error: BaseException | None = None
        for scheduler in (
            self.pipeline.prior_scheduler,
            self.pipeline.decoder_scheduler,
            self.pipeline.super_res_scheduler,
        ):
            scheduler.step = self._stopping(scheduler.step)
        threading.Thread(target=self._work, daemon=True).start()

    def facts(self) -> dict[str, Any]:
        """What was built."""
        return {"steps": self.steps} | describe(self.pipeline.decoder)

    def run(self) -> None:
        """One step; after the last, all that is left to do."""
        self.go.release()
        self.done.acquire()
        if self.error:
            raise self.error

    def _work(self) -> None:
        self.go.acquire()
        prior, decoder, upsampler = self.steps
        try:
            self.pipeline(
                "a red apple",
                prior_num_inference_steps=prior,
                decoder_num_inference_steps=decoder,
                super_res_num_inference_steps=upsampler,
            )
        except BaseException as error:
            self.error = error
        self.done.release()

    def _stopping(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def stopping(*arguments: Any, **options: Any) -> Any:
            result = step(*arguments, **options)
            self.left -= 1
            if self.left:
                self.done.release()
                self.go.acquire()
            return result

        return stopping


def components(channels: int, small: bool, dtype: torch.dtype, channels_last: bool) -> Any:
    """The pipeline's parts in the classes and options of Karlo's converter."""
    width, layers, heads = (64, 1, 2) if small else (768, 12, 12)
    depth, context = (1, 64) if small else (3, 1536)
    text = CLIPTextConfig(
        vocab_size=514 if small else 49408,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=CONTEXT,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=0,
    )
    prior = functools.partial(
        diffusers.PriorTransformer,
        num_attention_heads=2 if small else 32,
        attention_head_dim=64,
        num_layers=1 if small else 20,
        embedding_dim=width,
        num_embeddings=CONTEXT,
    )
    projection = functools.partial(
        UnCLIPTextProjModel,
        clip_embeddings_dim=width,
        time_embed_dim=4 * channels,
        cross_attention_dim=context,
    )
    return {
        "prior": _with_buffers(prior, dtype),
        "text_encoder": _with_buffers(lambda: CLIPTextModelWithProjection(text), dtype),
        "tokenizer": tokenizer(),
        "text_proj": _with_buffers(projection, dtype),
        "decoder": build(lambda: unet(channels, depth, context), dtype, channels_last),
        "super_res_first": build(lambda: refiner(channels, depth), dtype, channels_last),
        "super_res_last": build(lambda: refiner(channels, depth), dtype, channels_last),
        "prior_scheduler": diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0
        ),
        "decoder_scheduler": diffusers.UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": diffusers.UnCLIPScheduler(variance_type="fixed_small_log"),
    }


def refiner(channels: int, depth: int) -> diffusers.UNet2DModel:
    """Either of the two networks to 256 px."""
    return diffusers.UNet2DModel(
        sample_size=256,
        in_channels=6,
        out_channels=3,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("ResnetDownsampleBlock2D",) * 4,
        up_block_types=("ResnetUpsampleBlock2D",) * 4,
        block_out_channels=tuple(multiple * channels for multiple in (1, 2, 3, 4)),
        layers_per_block=depth,
        add_attention=False,
        resnet_time_scale_shift="default",
    )


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: each byte is a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=CONTEXT)


def _with_buffers(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """A network whose buffers hold masks and positions, so that it cannot start without memory."""
    return fill(make()).to(dtype)


def _upcast_interpolation() -> None:
    """Antialiased bicubic has no bfloat16 kernel on CPUs: this one call computes in float32."""
    interpolate = functional.interpolate

    @functools.wraps(interpolate)
    def upcast(input: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if input.dtype == torch.bfloat16 and options.get("antialias"):
            return interpolate(input.float(), *arguments, **options).to(input.dtype)
        return interpolate(input, *arguments, **options)

    functional.interpolate = upcast


_upcast_interpolation()
