"""Karlo at its published size: every tensor by name and shape, on the meta device."""

from typing import Any

import diffusers
import karlo_authors_layout as layout
import pytest
import torch
from diffusers.pipelines.unclip import UnCLIPTextProjModel
from torch import Tensor

from unclip.checkpoint import STAGES
from unclip.clip.architectures import ARCHITECTURES
from unclip.types import TextFeatures
from unclip.weights import adm, prior_transformer
from unclip.weights.family import Part
from unclip.weights.karlo import decoder_part, prior_part, upsampler_part
from unclip.weights.karlo_authors import decoder_rules, upsampler_rules
from unclip.weights.karlo_diffusers import TEXT_PROJ
from unclip.weights.rename import renamed
from unclip.weights.tensors import Tensors

DOWN = ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 3
UP = ("SimpleCrossAttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",)
WIDTHS = (320, 640, 960, 1280)


@pytest.fixture(scope="module")
def published() -> dict[str, Any]:
    """diffusers' modules as the conversion of the published weights configures them."""
    common = {"flip_sin_to_cos": True, "freq_shift": 0, "block_out_channels": WIDTHS}
    common |= {"layers_per_block": 3, "act_fn": "silu", "norm_num_groups": 32, "norm_eps": 1e-5}
    refiner = {
        **common,
        "sample_size": 256,
        "in_channels": 6,
        "out_channels": 3,
        "down_block_types": ("ResnetDownsampleBlock2D",) * 4,
        "up_block_types": ("ResnetUpsampleBlock2D",) * 4,
        "add_attention": False,
        "resnet_time_scale_shift": "default",
    }
    with torch.device("meta"):
        return {
            "prior": diffusers.PriorTransformer(),
            "text_proj": UnCLIPTextProjModel(time_embed_dim=1280, cross_attention_dim=1536),
            "decoder": diffusers.UNet2DConditionModel(
                **common,
                sample_size=64,
                in_channels=3,
                out_channels=6,
                down_block_types=DOWN,
                mid_block_type="UNetMidBlock2DSimpleCrossAttn",
                up_block_types=UP,
                cross_attention_dim=1536,
                attention_head_dim=64,
                class_embed_type="identity",
                resnet_time_scale_shift="scale_shift",
            ),
            "super_res_first": diffusers.UNet2DModel(**refiner),
            "super_res_last": diffusers.UNet2DModel(**refiner),
        }


def empty() -> TextFeatures:
    assert ARCHITECTURES["ViT-L/14"].embedding == 768
    ids = torch.zeros(1, 0, dtype=torch.int64)
    mask = torch.arange(77)[None] < 2
    return TextFeatures(torch.zeros(1, 768), torch.zeros(1, 77, 768), mask, ids, ids.bool())


def shapes(part: Part) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in part.tensors()}


def wanted(part: Part) -> dict[str, tuple[int, ...]]:
    build: Any = STAGES[part.name.split("-")[0]][0]
    with torch.device("meta"):
        stage = build(part.config)
    return {key: tuple(tensor.shape) for key, tensor in stage.state_dict().items()}


def parameters(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def test_prior(published) -> None:
    module = published["prior"]
    theirs = module.state_dict()
    assert len(theirs) == 338
    network = prior_transformer.diffusers_prior_config(module.config, "prior")
    rules = prior_transformer.diffusers_prior()
    part = prior_part(
        network, "authors", lambda: renamed(Tensors.of(theirs), rules, name="prior"), empty
    )
    assert shapes(part) == wanted(part)

    authors, statistics = layout.prior(module)
    assert len(authors) == 336 - 20 * 4  # queries, keys and values are one tensor there
    assert parameters(authors) + parameters(dict(enumerate(statistics))) == 1_022_030_080
    assert prior_transformer.authors_prior_config(Tensors.of(authors), "prior") == network
    rules = prior_transformer.authors_prior(network)
    again = dict(renamed(Tensors.of(authors), rules, name="prior"))
    assert {k: tuple(v.shape) for k, v in again.items()}.items() <= wanted(part).items()


def test_decoder(published) -> None:
    module, projection = published["decoder"], published["text_proj"]
    theirs, projected = module.state_dict(), projection.state_dict()
    assert (len(theirs), len(projected)) == (716, 11)
    assert (parameters(theirs), parameters(projected)) == (885_439_686, 7_878_400)
    unet = adm.diffusers_unet_config(module.config, "decoder")
    sizes = {"size": 64, "embedding": 768, "tokens": 4}

    def tensors() -> Any:
        rules = adm.diffusers_unet(unet, "network.unet.")
        yield from renamed(Tensors.of(theirs), rules, name="decoder")
        yield from renamed(Tensors.of(projected), TEXT_PROJ, name="text_proj")

    part = decoder_part(unet, "authors", tensors, empty, **sizes)
    assert shapes(part) == wanted(part)

    authors = layout.prefixed("model.", layout.decoder(module, projection))
    assert len(authors) == 595
    held = Tensors.of(authors)
    assert adm.authors_unet_config(held.without_prefix("model."), "decoder") == unet
    rules = decoder_rules(unet)
    part = decoder_part(
        unet, "authors", lambda: renamed(held, rules, name="decoder"), empty, **sizes
    )
    assert shapes(part) == wanted(part)


def test_upsampler(published) -> None:
    networks = {"first.": published["super_res_first"], "last.": published["super_res_last"]}
    states = {prefix: module.state_dict() for prefix, module in networks.items()}
    assert {(len(state), parameters(state)) for state in states.values()} == {(408, 691_579_523)}
    unet = adm.diffusers_unet_config(networks["first."].config, "super_res_first")

    def tensors() -> Any:
        for prefix, state in states.items():
            rules = adm.diffusers_unet(unet, f"network.{prefix}")
            yield from renamed(Tensors.of(state), rules, name=prefix)

    part = upsampler_part(unet, "authors", tensors, low=64, high=256)
    assert shapes(part) == wanted(part)

    authors = {
        **layout.prefixed("model_first_steps.", layout.unet(networks["first."])),
        **layout.prefixed("model_last_step.", layout.unet(networks["last."])),
    }
    assert len(authors) == 2 * 408
    held = Tensors.of(authors)
    found = adm.authors_unet_config(held.without_prefix("model_last_step."), "upsampler")
    assert found == unet
    rules = upsampler_rules(unet)
    part = upsampler_part(
        unet, "authors", lambda: renamed(held, rules, name="upsampler"), low=64, high=256
    )
    assert shapes(part) == wanted(part)
