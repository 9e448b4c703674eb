"""A small Karlo of diffusers' own modules with every parameter random, and what it computes."""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from diffusers.schedulers import scheduling_unclip
from einops import rearrange
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

D, CONTEXT, SIZE, ENLARGED = 32, 77, 16, 32
PROMPTS = ["a red fox", "two small boats on a calm sea, " * 4]
"""The second is longer than the context."""


def randomise(module: nn.Module, seed: int) -> Any:
    """Every parameter random, so that no zero or identity start hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 100
        values = torch.randn(parameter.shape, generator=generator) / fan**0.5
        if "norm" in name and name.endswith("weight"):
            values = values + 1
        parameter.data.copy_(values)
    return module.eval()


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: each byte is a token; "!", the padding, has id 0."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="!", model_max_length=CONTEXT)


def text_encoder() -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=514,
        hidden_size=D,
        intermediate_size=4 * D,
        projection_dim=D,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        hidden_act="quick_gelu",
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=0,
    )
    return randomise(CLIPTextModelWithProjection(config), 1)


def image_encoder() -> CLIPVisionModelWithProjection:
    config = CLIPVisionConfig(
        hidden_size=D,
        intermediate_size=4 * D,
        projection_dim=D,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        hidden_act="quick_gelu",
    )
    return randomise(CLIPVisionModelWithProjection(config), 2)


def prior() -> diffusers.PriorTransformer:
    model = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=64,
        num_layers=2,
        embedding_dim=D,
        num_embeddings=CONTEXT,
    )
    randomise(model, 3)
    model.clip_std.data.abs_().add_(0.5)
    return model


def text_proj() -> UnCLIPTextProjModel:
    return randomise(
        UnCLIPTextProjModel(clip_embeddings_dim=D, time_embed_dim=128, cross_attention_dim=48),
        4,
    )


def decoder_unet() -> diffusers.UNet2DConditionModel:
    model = diffusers.UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=6,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        only_cross_attention=False,
        block_out_channels=(32, 128),
        layers_per_block=1,
        cross_attention_dim=48,
        attention_head_dim=64,
        class_embed_type="identity",
        resnet_time_scale_shift="scale_shift",
    )
    randomise(model, 5)
    return passing_noise_on(model, lambda x, t: decoder_output(model, x, t))


def decoder_output(model: nn.Module, x: Tensor, t: int) -> Tensor:
    """With conditions of the right size, whatever they are."""
    generator = torch.Generator().manual_seed(6)
    return model(
        x,
        t,
        torch.randn(len(x), 4 + CONTEXT, 48, generator=generator),
        class_labels=torch.randn(len(x), 128, generator=generator),
    ).sample


def refiner(seed: int) -> diffusers.UNet2DModel:
    model = diffusers.UNet2DModel(
        sample_size=ENLARGED,
        in_channels=6,
        out_channels=3,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        block_out_channels=(32, 64),
        layers_per_block=1,
        add_attention=False,
        resnet_time_scale_shift="default",
    )
    randomise(model, seed)
    return passing_noise_on(model, lambda x, t: model(torch.cat([x, x.roll(1, 0)], 1), t).sample)


@torch.no_grad()
def passing_noise_on(model: Any, run: Any) -> Any:
    """Fit the last convolution so that the network nearly says the noise is all of x_t.

    Random networks say things that drive every pixel against the clamp. This one's samples stay
    inside, so that a difference between two implementations can be seen.
    """
    x = torch.randn(12, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
    seen: list[Tensor] = []
    handle = model.conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    run(x, 500)
    handle.remove()
    columns = rearrange(functional.unfold(seen[0], 3, padding=1), "b c p -> (b p) c")
    columns = torch.cat([columns, torch.ones(len(columns), 1)], dim=1).double()
    target = rearrange(x, "b c h w -> (b h w) c").double()
    solution = torch.linalg.lstsq(columns, target).solution.float()
    model.conv_out.weight[:3] = solution[:-1].T.reshape(model.conv_out.weight[:3].shape)
    model.conv_out.bias[:3] = solution[-1]
    return model


def schedulers() -> dict[str, diffusers.UnCLIPScheduler]:
    return {
        "prior_scheduler": diffusers.UnCLIPScheduler(
            prediction_type="sample", clip_sample_range=5.0
        ),
        "decoder_scheduler": diffusers.UnCLIPScheduler(variance_type="learned_range"),
        "super_res_scheduler": diffusers.UnCLIPScheduler(),
    }


def parts(*, variation: bool = False) -> dict[str, Any]:
    """All components of a pipeline, by their names there."""
    made = {
        "text_encoder": text_encoder(),
        "tokenizer": tokenizer(),
        "text_proj": text_proj(),
        "decoder": decoder_unet(),
        "super_res_first": refiner(8),
        "super_res_last": refiner(9),
        **schedulers(),
    }
    if variation:
        del made["prior_scheduler"]
        size = {"height": 32, "width": 32}
        processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        return made | {"image_encoder": image_encoder(), "feature_extractor": processor}
    return made | {"prior": prior()}


def pipeline(*, variation: bool = False) -> Any:
    """diffusers' own pipeline, deprecated there, around the small modules."""
    kind = diffusers.UnCLIPImageVariationPipeline if variation else diffusers.UnCLIPPipeline
    with quiet():
        built = kind(**parts(variation=variation))
    built.set_progress_bar_config(disable=True)
    return built


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without diffusers' warnings of its own deprecation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save(built: Any, folder: Path, **options: Any) -> Path:
    """Write it as published: text_proj declared as of a library called ``unclip``."""
    with quiet():
        built.save_pretrained(folder, **options)
    index = folder / "model_index.json"
    index.write_text(
        index.read_text().replace(
            '"diffusers",\n    "UnCLIPTextProj', '"unclip",\n    "UnCLIPTextProj'
        )
    )
    return folder


@dataclass(frozen=True)
class Recorded:
    """One step of a scheduler of theirs."""

    t: int
    goal: int | None
    x: Tensor
    noise: Tensor | None
    result: Tensor

    @property
    def spacing(self) -> tuple[int, ...]:
        """The grid whose first step this is, for a sampler of ours."""
        return (self.t,) if self.goal is None else (self.goal, self.t)

    @property
    def injected(self) -> list[Tensor]:
        """x_t and the step's noise."""
        return [self.x] if self.noise is None else [self.x, self.noise]


def record(monkeypatch: pytest.MonkeyPatch, noises: Sequence[Tensor]) -> list[Recorded]:
    """Feed prepared noise to their schedulers; the list fills with the steps they take."""
    queue, steps = iter(noises), []
    given: list[Tensor] = []

    def randn(*args: Any, dtype: torch.dtype, **options: Any) -> Tensor:
        given.append(next(queue).to(dtype))
        return given[-1]

    original = diffusers.UnCLIPScheduler.step

    def step(self, model_output, timestep, sample, prev_timestep=None, **options):
        given.clear()
        output = original(self, model_output, timestep, sample, prev_timestep, **options)
        goal = None if prev_timestep is None else int(prev_timestep)
        noise = given[0] if given else None
        steps.append(Recorded(int(timestep), goal, sample, noise, output.prev_sample))
        return output

    monkeypatch.setattr(scheduling_unclip, "randn_tensor", randn)
    monkeypatch.setattr(diffusers.UnCLIPScheduler, "step", step)
    return steps


def noises(seed: int, dtype: torch.dtype, *, batch: int = 2, with_prior: bool = True) -> dict:
    """x_T and the noise of every step but the last, by stage: 25, 25 and 7 steps."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"prior": (25, (D,))} if with_prior else {}
    shapes |= {"decoder": (25, (3, SIZE, SIZE)), "upsampler": (7, (3, ENLARGED, ENLARGED))}
    return {
        stage: [
            torch.randn(batch, *shape, generator=generator, dtype=torch.float64).to(dtype)
            for _ in range(steps)
        ]
        for stage, (steps, shape) in shapes.items()
    }
