"""Kandinsky's MoVQ in diffusers' layout (class VQModel, folder ``movq``) -> our codec."""

from collections.abc import Mapping
from typing import Any

from unclip.codec.codec import CodecConfig
from unclip.codec.network import MoVQConfig
from unclip.errors import CheckpointError
from unclip.weights.rename import Rule
from unclip.weights.tables import join

_ATTENTIONS = (("to_q", "to_k", "to_v", "to_out.0"), ("query", "key", "value", "proj_attn"))
"""Names of attention's layers; the second is how diffusers called them before 0.15."""


def codec_config(values: Mapping[str, Any], source: str) -> CodecConfig:
    """The config of our codec for a VQModel's.

    Raises:
        CheckpointError: it is a VQModel of another kind than MoVQ.
    """
    widths = tuple(values["block_out_channels"])
    levels = range(len(widths))
    attention = tuple(2**i for i in levels if values["down_block_types"][i].startswith("Attn"))
    mirrored = tuple(values["up_block_types"][::-1][i].startswith("Attn") for i in levels)
    latents = values["latent_channels"]
    expected = {
        "norm_type": "spatial",
        "norm_num_groups": 32,
        "act_fn": "silu",
        "in_channels": 3,
        "out_channels": 3,
        "vq_embed_dim": latents,
        "mid_block_add_attention": True,
    }
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise CheckpointError(
                f"{source}: {name} is {values[name]!r}, and of VQModels only MoVQ can be "
                f"imported, where it is {value!r}"
            )
    if mirrored != tuple(2**i in attention for i in levels):
        raise CheckpointError(f"{source}: encoder and decoder attend at different levels")
    return CodecConfig(
        network=MoVQConfig(
            latents=latents,
            codes=values["num_vq_embeddings"],
            widths=widths,
            depth=values["layers_per_block"],
            attention=attention,
            groups=values["norm_num_groups"],
        )
    )


def _norm(theirs: str, ours: str, *, spatial: bool) -> list[Rule]:
    if not spatial:
        return [Rule(f"{theirs}.{{p}}", f"{ours}.{{p}}")]
    parts = {"norm_layer": "norm", "conv_y": "scale", "conv_b": "shift"}
    return [Rule(f"{theirs}.{a}.{{p}}", f"{ours}.{b}.{{p}}") for a, b in parts.items()]


def _residual(theirs: str, ours: str, *, spatial: bool) -> list[Rule]:
    convs = {"conv1": "conv_1", "conv2": "conv_2", "conv_shortcut": "skip"}
    return [
        *(Rule(f"{theirs}.{a}.{{p}}", f"{ours}.{b}.{{p}}") for a, b in convs.items()),
        *_norm(f"{theirs}.norm1", f"{ours}.norm_1", spatial=spatial),
        *_norm(f"{theirs}.norm2", f"{ours}.norm_2", spatial=spatial),
    ]


def _attention(theirs: str, ours: str, *, spatial: bool) -> list[Rule]:
    norm = "spatial_norm" if spatial else "group_norm"
    rules = _norm(f"{theirs}.{norm}", f"{ours}.norm", spatial=spatial)
    for *qkv, out in _ATTENTIONS:
        joined = tuple(f"{theirs}.{name}.{{p}}" for name in qkv)
        rules.append(Rule(joined, f"{ours}.qkv.{{p}}", join))
        rules.append(Rule(f"{theirs}.{out}.{{p}}", f"{ours}.out.{{p}}"))
    return rules


def _half(side: str, direction: str, *, spatial: bool) -> list[Rule]:
    """Encoder or decoder."""
    theirs, ours = side, f"network.{side}"
    level = (f"{theirs}.{direction}_blocks.{{l}}", f"{ours}.levels.{{l}}")
    middle = (f"{theirs}.mid_block", f"{ours}.middle")
    resize = f"{direction}samplers.0.conv.{{p}}"
    return [
        Rule(f"{theirs}.conv_in.{{p}}", f"{ours}.entrance.{{p}}"),
        Rule(f"{theirs}.conv_out.{{p}}", f"{ours}.exit.{{p}}"),
        *_norm(f"{theirs}.conv_norm_out", f"{ours}.norm", spatial=spatial),
        *_residual(f"{level[0]}.resnets.{{r}}", f"{level[1]}.residuals.{{r}}", spatial=spatial),
        *_attention(
            f"{level[0]}.attentions.{{r}}", f"{level[1]}.attentions.{{r}}", spatial=spatial
        ),
        Rule(f"{level[0]}.{resize}", f"{level[1]}.resize.conv.{{p}}"),
        *_residual(f"{middle[0]}.resnets.0", f"{middle[1]}.before", spatial=spatial),
        *_attention(f"{middle[0]}.attentions.0", f"{middle[1]}.attention", spatial=spatial),
        *_residual(f"{middle[0]}.resnets.1", f"{middle[1]}.after", spatial=spatial),
    ]


MOVQ = (
    *_half("encoder", "down", spatial=False),
    Rule("quant_conv.{p}", "network.to_code.{p}"),
    Rule("quantize.embedding.{p}", "network.codebook.{p}"),
    Rule("post_quant_conv.{p}", "network.from_code.{p}"),
    *_half("decoder", "up", spatial=True),
)
"""VQModel with spatial norms -> `Codec`."""
