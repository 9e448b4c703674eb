"""MoVQ against diffusers' VQModel, with every parameter random."""

import pytest
import torch
from diffusers import VQModel
from torch import nn

from unclip.codec.codec import Codec, CodecConfig
from unclip.errors import CheckpointError
from unclip.types import finish
from unclip.weights.movq import MOVQ, codec_config
from unclip.weights.rename import renamed
from unclip.weights.tables import inverted
from unclip.weights.tensors import Tensors

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
PUBLISHED = {
    "down_block_types": (*["DownEncoderBlock2D"] * 3, "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", *["UpDecoderBlock2D"] * 3),
    "block_out_channels": (128, 256, 256, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "num_vq_embeddings": 16_384,
    "vq_embed_dim": 4,
    "norm_type": "spatial",
}
SMALL = {
    **PUBLISHED,
    "down_block_types": ("DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
    "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"),
    "block_out_channels": (32, 64, 64),
    "layers_per_block": 1,
    "num_vq_embeddings": 24,
}


def randomise(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 10
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            # Scales spread around 1, or twelve norms in a row would multiply rounding errors.
            noise *= 0.3 if "conv_y" in name else 1
            around = name.endswith(("norm_layer.weight", "conv_y.bias"))
            parameter.copy_(noise * fan**-0.5 + around)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def reference() -> VQModel:
    model = VQModel(**SMALL).double().eval()
    randomise(model, 0)
    return model


def ours(reference: VQModel, dtype: torch.dtype) -> Codec:
    codec = Codec(codec_config(reference.config, "movq")).to(dtype)
    tensors = Tensors.of(reference.state_dict())
    codec.load_state_dict(dict(renamed(tensors, MOVQ, name="movq")), strict=True)
    return codec


def error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().std())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_decode_equals_diffusers(reference, dtype) -> None:
    reference, codec = reference.to(dtype), ours(reference, dtype)
    latents = torch.randn(2, 4, 6, 10, dtype=dtype)
    with torch.no_grad():
        theirs = reference.decode(latents, force_not_quantize=True).sample
    images = finish(codec.sample(latents))
    assert images.shape == (2, 3, 24, 40)
    assert error(images, theirs) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_encode_equals_diffusers(reference, dtype) -> None:
    reference, codec = reference.to(dtype), ours(reference, dtype)
    images = torch.rand(2, 3, 24, 40, dtype=dtype) * 2 - 1
    with torch.no_grad():
        theirs = reference.encode(images).latents
    assert error(codec.encode(images), theirs) <= TOLERANCE[dtype]


def test_published_structure() -> None:
    with torch.device("meta"):
        theirs = VQModel(**PUBLISHED).state_dict()
        codec = Codec(codec_config(PUBLISHED | {"norm_num_groups": 32}, "movq"))
    assert codec.config == CodecConfig()
    moved = {key: tuple(value.shape) for key, value in renamed_meta(theirs)}
    assert moved == {key: tuple(value.shape) for key, value in codec.state_dict().items()}
    assert sum(p.numel() for p in codec.parameters()) == sum(t.numel() for t in theirs.values())


def renamed_meta(state):
    # Copies of meta tensors cost nothing, and `renamed` reads through copies.
    return renamed(Tensors.of(state), MOVQ, name="movq")


def test_names_before_diffusers_0_15(reference) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in reference.state_dict().items():
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.")
        state[key] = value
    assert any(".query." in key for key in state)
    read = dict(renamed(Tensors.of(state), MOVQ, name="movq"))
    assert all(
        torch.equal(read[k], v) for k, v in ours(reference, torch.float64).state_dict().items()
    )


def test_the_table_inverts(reference) -> None:
    state = reference.state_dict()
    codec = ours(reference, torch.float64)
    back = dict(renamed(Tensors.of(codec.state_dict()), inverted(MOVQ), name="codec"))
    assert back.keys() == state.keys()
    assert all(torch.equal(back[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    "change",
    [{"norm_type": "group"}, {"vq_embed_dim": 8}, {"up_block_types": ("UpDecoderBlock2D",) * 4}],
)
def test_other_vqmodels_are_refused(change) -> None:
    with pytest.raises(CheckpointError, match="movq"):
        codec_config(PUBLISHED | {"norm_num_groups": 32} | change, "movq")
