"""Kandinsky 2.2 in miniature: diffusers' and transformers' own parts, every parameter random."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDPMScheduler,
    PriorTransformer,
    UnCLIPScheduler,
    UNet2DConditionModel,
    VQModel,
)
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

EMBEDDING, CONTEXT, HEADS = 32, 16, 2
UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 8,
    "addition_embed_type": "image",
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "encoder_hid_dim": EMBEDDING,
    "encoder_hid_dim_type": "image_proj",
    "cross_attention_dim": 24,
    "attention_head_dim": 16,
    "resnet_time_scale_shift": "scale_shift",
}
MOVQ = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
    "layers_per_block": 1,
    "latent_channels": 4,
    "num_vq_embeddings": 12,
    "vq_embed_dim": 4,
    "norm_type": "spatial",
}
PRIOR = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "embedding_dim": EMBEDDING,
    "num_embeddings": CONTEXT,
}
DECODER_SCHEDULER = {
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "variance_type": "learned_range",
    "clip_sample": True,
    "clip_sample_range": 2.0,
    "thresholding": True,
    "dynamic_thresholding_ratio": 0.95,
    "sample_max_value": 2.0,
}
PRIOR_SCHEDULER = {"prediction_type": "sample", "clip_sample_range": 10.0}


def randomise(module: nn.Module, seed: int) -> None:
    """Give every parameter random numbers of its layer's usual size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            fan = parameter[0].numel() if parameter.ndim > 1 else 10
            gain = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(noise * fan**-0.5 + gain)


def parts(dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Everything with weights, by the folder it lies in."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        image_size=16,
        patch_size=8,
        projection_dim=EMBEDDING,
        hidden_act="gelu",
    )
    text = CLIPTextConfig(
        vocab_size=600,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=EMBEDDING,
        hidden_act="gelu",
        bos_token_id=598,
        eos_token_id=599,
    )
    built = {
        "prior": PriorTransformer(**PRIOR),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "text_encoder": CLIPTextModelWithProjection(text),
        "unet": UNet2DConditionModel(**UNET),
        "movq": VQModel(**MOVQ),
    }
    for seed, module in enumerate(built.values()):
        randomise(module, seed)
    with torch.no_grad():
        built["prior"].clip_std.abs_().add_(0.5)
    # Numbers that float32 holds exactly: both sides have the same weights in either precision.
    return {name: module.to(dtype).eval() for name, module in built.items()}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-level CLIP vocabulary of 600 tokens."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = [("r", "i</w>"), ("c", "o"), ("co", "r"), ("g", "i</w>")]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    vocabulary += [f"<filler {i}>" for i in range(598 - len(vocabulary))]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    ids = {token: place for place, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"),
        str(folder / "merges.txt"),
        model_max_length=CONTEXT,
        pad_token="<|endoftext|>",
    )


def processor() -> Any:
    """What brings an image to the tower's size."""
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def schedulers() -> tuple[UnCLIPScheduler, DDPMScheduler]:
    """Of prior and decoder."""
    return UnCLIPScheduler(**PRIOR_SCHEDULER), DDPMScheduler(**DECODER_SCHEDULER)


def in_float64(scheduler: Any, betas: torch.Tensor) -> Any:
    """Give a scheduler tables of full precision."""
    scheduler.betas = betas.double()
    scheduler.alphas = 1 - scheduler.betas
    scheduler.alphas_cumprod = scheduler.alphas.cumprod(0)
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@contextmanager
def injected(*modules: Any, noises: list[torch.Tensor]) -> Iterator[None]:
    """Let diffusers draw prepared noise, in order."""
    supply = iter(noises)

    def draw(shape: Any, **_: Any) -> torch.Tensor:
        noise = next(supply)
        assert noise.shape == tuple(shape), (noise.shape, shape)
        return noise

    before = [module.randn_tensor for module in modules]
    for module in modules:
        module.randn_tensor = draw
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.randn_tensor = function


def save(folder: Path, built: dict[str, Any]) -> tuple[Path, Path]:
    """Write both repositories as diffusers does; returns those of prior and decoder."""
    prior, decoder = folder / "prior-repository", folder / "decoder-repository"
    homes = {
        prior: ("prior", "image_encoder", "text_encoder"),
        decoder: ("unet", "movq"),
    }
    for home, names in homes.items():
        for name in names:
            built[name].save_pretrained(home / name)
    tokenizer(folder / "vocabulary").save_pretrained(prior / "tokenizer")
    processor().save_pretrained(prior / "image_processor")
    first, second = schedulers()
    first.save_pretrained(prior / "scheduler")
    second.save_pretrained(decoder / "scheduler")
    classes = {prior: "KandinskyV22PriorPipeline", decoder: "KandinskyV22Pipeline"}
    for home, name in classes.items():
        (home / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return prior, decoder
