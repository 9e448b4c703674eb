"""Karlo at its published size with random weights, as a model folder on disk."""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoint import CONFIG, INDEX, STAGES, WEIGHTS, Index, write_config, write_index
from unclip.clip.architectures import ARCHITECTURES
from unclip.clip.tokenizer import SMALLEST, Tokenizer
from unclip.storage.streaming import without_memory
from unclip.types import TextFeatures
from unclip.weights import adm, prior_transformer
from unclip.weights.family import Part
from unclip.weights.karlo import clip_changes, decoder_part, defaults, prior_part, upsampler_part
from unclip.weights.writer import write_tensors

MODELS = Path(__file__).resolve().parents[2] / "cache" / "benchmarks" / "models"
"""Where models written for a measurement lie; they may be deleted."""
NAMES = {"random-karlo-fp16": torch.float16, "random-karlo-fp32": torch.float32}
CLIP_NAME = "ViT-L/14"
UNET = {"block_out_channels": (320, 640, 960, 1280), "layers_per_block": 3}
DECODER = UNET | {
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3,
    "up_block_types": ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "cross_attention_dim": 1536,
    "attention_head_dim": 64,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
}
REFINER = UNET | {
    "in_channels": 6,
    "out_channels": 3,
    "down_block_types": ("ResnetDownsampleBlock2D",) * 4,
    "up_block_types": ("ResnetUpsampleBlock2D",) * 4,
    "add_attention": False,
    "resnet_time_scale_shift": "default",
}
PRIOR = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
}


def parts() -> list[Part]:
    """The stages' names and configs; their tensors are not to be asked for."""
    clip = ARCHITECTURES[CLIP_NAME].updated(clip_changes("authors"))
    return [
        Part("clip", clip, _nothing),
        prior_part(
            prior_transformer.diffusers_prior_config(PRIOR, "Karlo"), "authors", _nothing, _empty
        ),
        decoder_part(
            adm.diffusers_unet_config(DECODER, "Karlo"),
            "authors",
            _nothing,
            _empty,
            size=64,
            embedding=768,
            tokens=4,
        ),
        upsampler_part(
            adm.diffusers_unet_config(REFINER, "Karlo"), "authors", _nothing, low=64, high=256
        ),
    ]


def write_named(name: str) -> Path:
    """One of `NAMES` as a folder: 6.9 GB in float16, 13.7 GB in float32."""
    return write(MODELS / name, NAMES[name])


def write(folder: Path, dtype: torch.dtype) -> Path:
    """Write the model, unless it is there already; parameters in ``dtype``."""
    if (folder / INDEX).exists():
        return folder
    for part in parts():
        place = folder / part.name
        place.mkdir(parents=True, exist_ok=True)
        name = part.name.split("-")[0]
        with without_memory():
            stage = STAGES[name][0](part.config)
        write_config(place, name, part.config)
        state = stage.state_dict()
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        write_tensors(place / WEIGHTS, shapes, _random(state, dtype), name="random Karlo")
        if name == "clip":
            Tokenizer.train([], vocabulary=SMALLEST).save(place / "tokenizer.json")
        assert (place / CONFIG).exists()
    index = Index(
        clip="clip",
        prior="prior",
        decoder="decoder",
        upsamplers={256: "upsampler-256"},
        defaults=defaults("authors"),
    )
    write_index(folder, index)
    return folder


def _random(state: dict[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    largest = max(value.numel() for value in state.values())
    numbers = torch.rand(largest, dtype=torch.float32).mul_(0.04).sub_(0.02).to(dtype)
    for key, value in state.items():
        if value.is_meta:
            yield key, numbers[: value.numel()].view(value.shape)
        else:
            # Measured tables, among them standard deviations.
            yield key, torch.rand_like(value) + 0.5


def _nothing() -> Iterator[tuple[str, Tensor]]:
    return iter(())


def _empty() -> TextFeatures:
    raise NotImplementedError


if __name__ == "__main__":
    write(Path(sys.argv[1]), {"fp16": torch.float16, "fp32": torch.float32}[sys.argv[2]])
