"""The ADM U-Net in diffusers' layout and in its authors' (guided-diffusion, GLIDE, Karlo) -> ours.

Knows tensor names and configs; what conditions a U-Net is the affair of each family.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from einops import rearrange
from torch import Tensor

from unclip.errors import CheckpointError
from unclip.nn.unet import UNetConfig
from unclip.weights.rename import Rule
from unclip.weights.tables import join
from unclip.weights.tensors import Tensors

_DIFFUSERS_RESIDUAL = {
    "norm1": "norm_1",
    "conv1": "conv_1",
    "time_emb_proj": "embedding",
    "norm2": "norm_2",
    "conv2": "conv_2",
    "conv_shortcut": "skip",
}
_AUTHORS_RESIDUAL = {
    "in_layers.0": "norm_1",
    "in_layers.2": "conv_1",
    "emb_layers.1": "embedding",
    "out_layers.0": "norm_2",
    "out_layers.3": "conv_2",
    "skip_connection": "skip",
}
_DIFFUSERS_TRUNK = {
    "time_embedding.linear_1": "time.linear_1",
    "time_embedding.linear_2": "time.linear_2",
    "conv_in": "entrance",
    "conv_norm_out": "norm",
    "conv_out": "exit",
}
_AUTHORS_TRUNK = {
    "time_embed.0": "time.linear_1",
    "time_embed.2": "time.linear_2",
    "input_blocks.0.0": "entrance",
    "out.0": "norm",
    "out.2": "exit",
}
_HEAD = 64
"""Width of a head in every published model; authors' weights do not tell it."""


def plain(names: Mapping[str, str], theirs: str = "", ours: str = "") -> list[Rule]:
    """Rules for layers whose weight and bias only change their names."""
    return [Rule(f"{theirs}{a}.{{leaf}}", f"{ours}{b}.{{leaf}}") for a, b in names.items()]


def diffusers_unet(unet: UNetConfig, ours: str = "") -> list[Rule]:
    """Rules for a UNet2DConditionModel or UNet2DModel of ADM's block types.

    Args:
        unet: its shape, as from `diffusers_unet_config`.
        ours: prefix of our names.
    """
    blocks: list[tuple[str, str]] = []
    attentions: list[tuple[str, str]] = []
    for level in range(len(unet.multipliers)):
        for index in range(unet.depth + 1):
            place = level * (unet.depth + 1) + index
            kind = f"resnets.{index}" if index < unet.depth else "downsamplers.0"
            blocks.append((f"down_blocks.{level}.{kind}", f"down.{place}.residual"))
            blocks.append((f"up_blocks.{level}.resnets.{index}", f"up.{place}.residual"))
            for side in ("down", "up"):
                theirs = f"{side}_blocks.{level}.attentions.{index}"
                attentions.append((theirs, f"{side}.{place}.attention"))
        blocks.append((f"up_blocks.{level}.upsamplers.0", f"up.{place}.resize"))
    blocks += [(f"mid_block.resnets.{i}", f"middle.{i}.residual") for i in range(2)]
    attentions.append(("mid_block.attentions.0", "middle.0.attention"))
    rules = plain(_DIFFUSERS_TRUNK, ours=ours)
    for a, b in blocks:
        rules += plain(_DIFFUSERS_RESIDUAL, f"{a}.", f"{ours}{b}.")
    for a, b in attentions:
        rules += plain({"group_norm": "norm", "to_out.0": "out"}, f"{a}.", f"{ours}{b}.")
        for names, layer in (
            (("to_q", "to_k", "to_v"), "qkv"),
            (("add_k_proj", "add_v_proj"), "context"),
        ):
            joined = tuple(f"{a}.{name}.{{leaf}}" for name in names)
            rules.append(Rule(joined, f"{ours}{b}.{layer}.{{leaf}}", join))
    return rules


def authors_unet(unet: UNetConfig, theirs: str = "", ours: str = "") -> list[Rule]:
    """Rules for guided-diffusion's layout, in which query, key and value alternate by head.

    Args:
        unet: its shape, as from `authors_unet_config`.
        theirs: prefix of their names.
        ours: prefix of our names.
    """
    rules = plain(_AUTHORS_TRUNK, theirs, ours)
    levels, per_level = len(unet.multipliers), unet.depth + 1

    def block(a: str, b: str, level: int, *, attends: bool, resizes: bool = False) -> None:
        parts = ["residual", *(["attention"] if attends else []), *(["resize"] if resizes else [])]
        channels = unet.multipliers[level] * unet.channels
        for index, part in enumerate(parts):
            names = (f"{theirs}{a}.{index}.", f"{ours}{b}.{part}.")
            if part == "attention":
                rules.extend(_authors_attention(*names, max(1, channels // unet.head_channels)))
            else:
                rules.extend(plain(_AUTHORS_RESIDUAL, *names))

    for place in range(levels * per_level - 1):
        level, index = divmod(place, per_level)
        attends = index < unet.depth and 2**level in unet.attention
        block(f"input_blocks.{place + 1}", f"down.{place}", level, attends=attends)
    for place in range(levels * per_level):
        level, last = levels - 1 - place // per_level, place % per_level == unet.depth
        attends = 2**level in unet.attention
        resizes = last and level > 0
        block(f"output_blocks.{place}", f"up.{place}", level, attends=attends, resizes=resizes)
    # Their middle is one sequence: a res-block, perhaps attention, a res-block.
    block("middle_block", "middle.0", levels - 1, attends=unet.middle_attention)
    second = 2 if unet.middle_attention else 1
    rules += plain(
        _AUTHORS_RESIDUAL, f"{theirs}middle_block.{second}.", f"{ours}middle.1.residual."
    )
    return rules


def by_kind(heads: int, kinds: int) -> Callable[[Tensor], Tensor]:
    """From rows ordered by head and then kind (query, key, value) to rows ordered by kind.

    The last axis of a 1-D convolution's weight, of size 1, is dropped.
    """

    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.squeeze(-1) if tensor.ndim == 3 else tensor
        pattern = "(head kind row) ... -> (kind head row) ..."
        return rearrange(tensor, pattern, head=heads, kind=kinds).contiguous()

    return change


def _authors_attention(theirs: str, ours: str, heads: int) -> list[Rule]:
    return [
        *plain({"norm": "norm"}, theirs, ours),
        Rule(f"{theirs}qkv.{{leaf}}", f"{ours}qkv.{{leaf}}", by_kind(heads, 3)),
        Rule(f"{theirs}encoder_kv.{{leaf}}", f"{ours}context.{{leaf}}", by_kind(heads, 2)),
        Rule(f"{theirs}proj_out.{{leaf}}", f"{ours}out.{{leaf}}", by_kind(1, 1)),
    ]


def diffusers_unet_config(values: Mapping[str, Any], source: str) -> UNetConfig:
    """The shape of a UNet2DConditionModel or UNet2DModel, from its config.json.

    Args:
        values: the config.
        source: where it lies, for errors.

    Raises:
        CheckpointError: it is built of other blocks than ADM's.
    """
    widths = values["block_out_channels"]
    levels = len(widths)
    down, up = values["down_block_types"], values["up_block_types"][::-1]
    attention = tuple(2**i for i in range(levels) if down[i] == "SimpleCrossAttnDownBlock2D")
    conditioned = "cross_attention_dim" in values
    expected = {
        "act_fn": "silu",
        "norm_num_groups": 32,
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "center_input_sample": False,
        "mid_block_scale_factor": 1,
    }
    if conditioned:
        expected |= {
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
            "only_cross_attention": False,
        }
    else:
        expected |= {"add_attention": False}
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise CheckpointError(
                f"{source}: {name} is {values[name]!r}; U-Nets with {value!r} can be imported"
            )
    for types, side in ((down, "Down"), (up, "Up")):
        for level, kind in enumerate(types):
            attends = 2**level in attention
            wanted = f"SimpleCrossAttn{side}Block2D" if attends else f"Resnet{side}sampleBlock2D"
            if kind != wanted:
                raise CheckpointError(
                    f"{source}: block {kind} is not one of ADM's U-Net ({wanted})"
                )
    channels = widths[0]
    if any(width % channels for width in widths):
        raise CheckpointError(f"{source}: widths {widths} are no multiples of the first")
    heads = values.get("attention_head_dim", _HEAD)
    heads = heads if isinstance(heads, int) else heads[0]
    return UNetConfig(
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        depth=values["layers_per_block"],
        attention=attention,
        middle_attention=conditioned,
        head_channels=heads if conditioned else _HEAD,
        context_width=values["cross_attention_dim"] if conditioned else None,
        scale_shift_norm=values.get("resnet_time_scale_shift", "default") == "scale_shift",
    )


def authors_unet_config(tensors: Tensors, source: str) -> UNetConfig:
    """The shape of a U-Net in the authors' layout, from its tensors alone.

    Heads, which leave no trace in the weights, are taken to be 64 channels wide.

    Raises:
        CheckpointError: the tensors are not those of such a U-Net.
    """
    places = {int(m[1]) for key in tensors if (m := re.match(r"output_blocks\.(\d+)\.", key))}
    resizing = {
        int(m[1])
        for key in tensors
        if (m := re.fullmatch(r"output_blocks\.(\d+)\.[12]\.in_layers\.0\.weight", key))
    }
    levels = len(resizing) + 1
    if not places or len(places) % levels:
        raise CheckpointError(f"{source}: {len(places)} output blocks are not ADM's U-Net")
    per_level = len(places) // levels

    def shape(name: str) -> tuple[int, ...]:
        if name not in tensors:
            raise CheckpointError(f"{source}: tensor {name} is missing")
        return tensors.shape(name)

    tops = [per_level * (levels - 1 - level) for level in range(levels)]
    widths = [shape(f"output_blocks.{top}.0.out_layers.3.weight")[0] for top in tops]
    channels, in_channels = shape("input_blocks.0.0.weight")[:2]
    attends = [f"output_blocks.{top}.1.qkv.weight" in tensors for top in tops]
    context = "middle_block.1.encoder_kv.weight"
    return UNetConfig(
        in_channels=in_channels,
        out_channels=shape("out.2.weight")[0],
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        depth=per_level - 1,
        attention=tuple(2**level for level in range(levels) if attends[level]),
        middle_attention="middle_block.1.qkv.weight" in tensors,
        head_channels=_HEAD,
        context_width=shape(context)[1] if context in tensors else None,
        scale_shift_norm=shape("middle_block.0.emb_layers.1.weight")[0] == 2 * widths[-1],
    )
