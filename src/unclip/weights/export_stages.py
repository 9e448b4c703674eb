"""Our prior, decoder and codec -> diffusers' PriorTransformer, UNet2DConditionModel, VQModel.

What their architectures cannot hold is told instead.
"""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from unclip.codec.codec import CodecConfig
from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.nn.layers import unit_scale
from unclip.nn.unet import UNetConfig
from unclip.prior.diffusion_prior import DiffusionPriorConfig
from unclip.prior.kinds import PriorConfig
from unclip.weights.adm import diffusers_unet
from unclip.weights.component import DIFFUSERS, Component, LeftOut, dropped
from unclip.weights.export_clip import Exported
from unclip.weights.kandinsky import IMAGE
from unclip.weights.karlo_diffusers import TEXT_PROJ
from unclip.weights.movq import MOVQ
from unclip.weights.prior_transformer import diffusers_prior
from unclip.weights.rename import Rule
from unclip.weights.tables import inverted
from unclip.weights.tensors import Tensors

GROUPS = 32
Change = Callable[[Tensor], Tensor]


def prior_component(config: PriorConfig, tensors: Tensors) -> Exported:
    """The prior, if it is one of diffusion that a PriorTransformer can hold."""
    if not isinstance(config, DiffusionPriorConfig):
        return [], [LeftOut("prior", f"PriorTransformer diffuses; this one is {config.kind}")]
    network, transformer = config.network, config.network.transformer
    obstacles = {
        "its text states are as wide as its embeddings": network.text_width == network.embedding,
        "its attention is causal": network.causal,
        "its MLPs are four times as wide, with GELU": (
            transformer.mlp_ratio,
            transformer.activation,
        )
        == (4, "gelu"),
        "it predicts x0": config.diffusion.target == "x0",
    }
    if reasons := [what for what, holds in obstacles.items() if not holds]:
        return [], [LeftOut("prior", f"PriorTransformer needs that {'; '.join(reasons)}")]
    left = []
    if network.unconditional == "learned":
        why = "diffusers' pipelines encode the empty prompt in its place, so guidance differs"
        left.append(LeftOut("prior: its learned features of no text", why))
    if config.renormalise:
        why = "post_process_latents does not; normalise what it returns"
        left.append(LeftOut("prior: bringing embeddings to unit length", why))
    width = transformer.width // transformer.heads
    values = {
        "_class_name": "PriorTransformer",
        "num_attention_heads": transformer.heads,
        "attention_head_dim": width,
        "num_layers": transformer.depth,
        "embedding_dim": network.embedding,
        "num_embeddings": network.context,
        "additional_embeddings": 4,
        "dropout": transformer.dropout,
    }
    scale = network.text_scale or unit_scale(network.embedding)
    rules = inverted(diffusers_prior())
    rules += dropped("network.unconditional.{leaf}", "posterior.{leaf}")
    if config.scaling != "standardised":
        tensors |= _statistics(config)
    changes = _scaled("embedding_proj.weight", scale)
    return [Component("prior", values, DIFFUSERS, tensors, rules, changes)], left


def decoder_components(config: DecoderConfig, tensors: Tensors) -> Exported:
    """The decoder: Karlo's way with ``text_proj``, or Kandinsky's in one piece."""
    unet, image, text = config.network.unet, config.network.image, config.network.text
    channels = [unet.channels * factor for factor in unet.multipliers]
    obstacles = {
        f"it sees the image in patches of {unet.patch} px": unet.patch == 1,
        "it resizes by convolutions": unet.resblock_updown,
        "it does not attend in the middle": unet.middle_attention,
        f"its norms have other than {GROUPS} groups": unet.groups == GROUPS
        and not any(width % GROUPS for width in channels),
        "z_i is painted on its first level": image.layout is None,
    }
    reasons = [what for what, holds in obstacles.items() if not holds]
    karlo = isinstance(text, ClipStatesConfig) and not image.norm and image.null == "learned"
    kandinsky = isinstance(text, NoTextConfig) and image.norm and image.null == "stored"
    if not karlo and not kandinsky:
        whole = "a caption encoder" if not isinstance(text, NoTextConfig | ClipStatesConfig) else ""
        reasons.append(f"it is conditioned by {whole or 'neither Karlo nor Kandinsky way'}")
    if reasons:
        why = f"UNet2DConditionModel has no place for it: {'; '.join(reasons)}"
        return [], [LeftOut("decoder", why)]
    values = _unet(unet, config.size)
    if isinstance(text, ClipStatesConfig):
        return _karlo(config, text, values, tensors)
    return _kandinsky(config, values, tensors)


def codec_component(config: CodecConfig, tensors: Tensors) -> Exported:
    """The codec."""
    network = config.network
    if network.groups != GROUPS:
        return [], [LeftOut("codec", f"VQModel's spatial norms have {GROUPS} groups")]
    levels = range(len(network.widths))
    attends = [2**level in network.attention for level in levels]
    values = {
        "_class_name": "VQModel",
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ["Attn" * here + "DownEncoderBlock2D" for here in attends],
        "up_block_types": ["Attn" * here + "UpDecoderBlock2D" for here in reversed(attends)],
        "block_out_channels": list(network.widths),
        "layers_per_block": network.depth,
        "latent_channels": network.latents,
        "num_vq_embeddings": network.codes,
        "norm_num_groups": GROUPS,
        "vq_embed_dim": network.latents,
        "norm_type": "spatial",
    }
    return [Component("movq", values, DIFFUSERS, tensors, inverted(MOVQ))], []


def _karlo(
    config: DecoderConfig, text: ClipStatesConfig, values: dict[str, Any], tensors: Tensors
) -> Exported:
    network = config.network
    left = []
    if text.unconditional == "learned":
        why = "diffusers' pipelines encode the empty prompt in its place, so guidance differs"
        left.append(LeftOut("decoder: its learned features of no text", why))
    image = network.image
    scale = image.scale or unit_scale(network.embedding)
    unet = network.unet
    changes = _scaled("embedding_proj.weight", scale)
    changes |= _scaled("clip_image_embeddings_project_to_time_embeddings.weight", scale)
    null = "learned_classifier_free_guidance_embeddings"
    changes |= _scaled(null, 1 / scale)
    for leaf in ("weight", "bias"):
        name = f"clip_extra_context_tokens_proj.{leaf}"
        factor = scale if leaf == "weight" else 1.0
        changes[name] = _tokens(image, factor)
    projection = {
        "_class_name": "UnCLIPTextProjModel",
        "clip_extra_context_tokens": image.tokens,
        "clip_embeddings_dim": network.embedding,
        "time_embed_dim": unet.embedding_width,
        "cross_attention_dim": unet.context_width,
    }
    rest = ["network.text.unconditional.{leaf}"]
    conditioning = [name for name in tensors if not name.startswith("network.unet.")]
    trunk = [name for name in tensors if name.startswith("network.unet.")]
    components = [
        Component(
            "decoder",
            values | {"class_embed_type": "identity"},
            DIFFUSERS,
            tensors,
            inverted(diffusers_unet(unet, "network.unet.")) + dropped(*conditioning),
        ),
        Component(
            "text_proj",
            projection,
            DIFFUSERS,
            tensors,
            inverted(TEXT_PROJ) + dropped(*rest, *trunk),
            changes,
        ),
    ]
    return components, left


def _kandinsky(config: DecoderConfig, values: dict[str, Any], tensors: Tensors) -> Exported:
    network = config.network
    image = network.image
    scale = image.scale or unit_scale(network.embedding)
    if image.tokens != 32:
        why = f"UNet2DConditionModel makes 32 tokens of z_i, this decoder {image.tokens}"
        return [], [LeftOut("decoder", why)]
    values = values | {
        "encoder_hid_dim": network.embedding,
        "encoder_hid_dim_type": "image_proj",
        "addition_embed_type": "image",
    }
    rules: list[Rule] = inverted([*diffusers_unet(network.unet, "network.unet."), *IMAGE])
    rules += dropped("network.image.stored.{leaf}")
    changes = _scaled("add_embedding.image_proj.weight", scale)
    changes |= _scaled("encoder_hid_proj.image_embeds.weight", scale)
    return [Component("unet", values, DIFFUSERS, tensors, rules, changes)], []


def _unet(unet: UNetConfig, size: int) -> dict[str, Any]:
    attends = [2**level in unet.attention for level in range(len(unet.multipliers))]

    def blocks(side: str, levels: list[bool]) -> list[str]:
        with_attention = f"SimpleCrossAttn{side}Block2D"
        return [with_attention if here else f"Resnet{side}sampleBlock2D" for here in levels]

    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": size,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "down_block_types": blocks("Down", attends),
        "up_block_types": blocks("Up", attends[::-1]),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "block_out_channels": [unet.channels * factor for factor in unet.multipliers],
        "layers_per_block": unet.depth,
        "cross_attention_dim": unet.context_width,
        "attention_head_dim": unet.head_channels,
        "norm_num_groups": GROUPS,
        "only_cross_attention": False,
        "resnet_time_scale_shift": "scale_shift" if unet.scale_shift_norm else "default",
    }


def _statistics(config: DiffusionPriorConfig) -> Tensors:
    """Statistics that say the same as x = s·z: mean 0 and standard deviation 1 / s."""
    size = config.network.embedding
    scale = 1.0 if config.scaling == "none" else unit_scale(size)
    return Tensors.of(
        {"space.mean": torch.zeros(size), "space.std": torch.full((size,), 1 / scale)}
    )


def _scaled(name: str, factor: float) -> dict[str, Change]:
    """A factor on the input of a layer, moved into its weight."""
    return {} if factor == 1 else {name: lambda tensor: tensor * factor}


def _tokens(image: ImageEmbeddingConfig, factor: float) -> Change:
    """Rows of the projection to tokens in Karlo's order, channel by channel."""

    def change(tensor: Tensor) -> Tensor:
        if image.token_order == "token_major":
            tensor = rearrange(tensor, "(k c) ... -> (c k) ...", k=image.tokens)
        return tensor if factor == 1 else tensor * factor

    return change
