"""Karlo's own file layout, written from diffusers' modules: the inverse of what is under test.

It shares no table with the importer. Queries, keys and values alternate by head, attention is made
of 1-D convolutions, blocks are counted through, and one file holds both upsamplers.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Weights = dict[str, Tensor]

RESNET = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
]
TRUNK = [
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
]
TEXT_PROJ = [
    ("encoder_hidden_states_proj", "text_seq_proj.0"),
    ("text_encoder_hidden_states_norm", "text_seq_proj.1"),
    ("embedding_proj", "text_feat_proj"),
    ("clip_image_embeddings_project_to_time_embeddings", "clip_emb"),
    ("clip_extra_context_tokens_proj", "clip_tok_proj"),
]
PRIOR = [
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("proj_in", "clip_img_proj"),
    ("embedding_proj", "text_emb_proj"),
    ("encoder_hidden_states_proj", "text_enc_proj"),
    ("proj_to_clip_embeddings", "out_proj"),
    ("norm_out", "final_ln"),
]
PRIOR_BLOCK = [
    ("norm1", "ln_1"),
    ("norm3", "ln_2"),
    ("attn1.to_out.0", "attn.c_proj"),
    ("ff.net.0.proj", "mlp.c_fc"),
    ("ff.net.2", "mlp.c_proj"),
]


def alternating(parts: list[Tensor], heads: int) -> Tensor:
    """First head's query, key and value rows, then the second head's."""
    per_head = [part.chunk(heads) for part in parts]
    return torch.cat([piece for head in zip(*per_head, strict=True) for piece in head])


def take(state: Weights, pairs: list[tuple[str, str]], theirs: str, new: str) -> Weights:
    return {
        f"{new}{b}.{leaf}": state[f"{theirs}{a}.{leaf}"]
        for a, b in pairs
        for leaf in ("weight", "bias")
        if f"{theirs}{a}.{leaf}" in state
    }


def attention(state: Weights, theirs: str, new: str, head: int) -> Weights:
    made = take(state, [("group_norm", "norm")], theirs, new)
    heads = len(state[f"{theirs}to_q.weight"]) // head
    for leaf in ("weight", "bias"):
        qkv = [state[f"{theirs}to_{kind}.{leaf}"] for kind in "qkv"]
        made[f"{new}qkv.{leaf}"] = alternating(qkv, heads)
        kv = [state[f"{theirs}add_{kind}_proj.{leaf}"] for kind in "kv"]
        made[f"{new}encoder_kv.{leaf}"] = alternating(kv, heads)
        made[f"{new}proj_out.{leaf}"] = state[f"{theirs}to_out.0.{leaf}"]
    for layer in ("qkv", "encoder_kv", "proj_out"):
        made[f"{new}{layer}.weight"] = made[f"{new}{layer}.weight"][:, :, None]
    return made


def unet(module: Any, *, head: int = 64) -> Weights:
    """A U-Net of diffusers' as guided-diffusion names it."""
    state = dict(module.state_dict())
    per_level = module.config.layers_per_block + 1
    made = take(state, TRUNK, "", "")
    places = sorted(
        {re.match(r"(.*?_blocks?(?:\.\d+)?\.[a-z]+\.\d+)\.", k)[1] for k in state if "_block" in k}
    )
    for place in places:
        side, *numbers = re.fullmatch(
            r"(down|mid|up)_blocks?\.?(\d+)?\.([a-z]+)\.(\d+)", place
        ).groups()
        level, kind, index = int(numbers[0] or 0), numbers[1], int(numbers[2])
        attends = any(f"{side}_blocks.{level}.attentions" in other for other in places)
        if side == "mid":
            attends = "mid_block.attentions.0" in places
            position = {"attentions": 1, "resnets": 0 if index == 0 else 1 + attends}[kind]
            new = f"middle_block.{position}."
        else:
            last = kind in ("downsamplers", "upsamplers")
            block = level * per_level + (per_level - 1 if last else index)
            position = {"resnets": 0, "attentions": 1, "downsamplers": 0, "upsamplers": 1 + attends}
            stem, offset = ("input_blocks", 1) if side == "down" else ("output_blocks", 0)
            new = f"{stem}.{block + offset}.{position[kind]}."
        if kind == "attentions":
            made |= attention(state, place + ".", new, head)
        else:
            made |= take(state, RESNET, place + ".", new)
    return made


def prior(module: Any) -> tuple[Weights, tuple[Tensor, Tensor]]:
    """The prior's weights, and its statistics, which lie in a file of their own."""
    state = dict(module.state_dict())
    made = take(state, PRIOR, "", "")
    made["positional_embedding"] = state["positional_embedding"]
    made["prd_emb"] = state["prd_embedding"]
    for n in range(module.config.num_layers):
        theirs, new = f"transformer_blocks.{n}.", f"transformer.resblocks.{n}."
        made |= take(state, PRIOR_BLOCK, theirs, new)
        for leaf in ("weight", "bias"):
            qkv = [state[f"{theirs}attn1.to_{kind}.{leaf}"] for kind in "qkv"]
            heads = module.config.num_attention_heads
            made[f"{new}attn.c_qkv.{leaf}"] = alternating(qkv, heads)
    return made, (state["clip_mean"][0], state["clip_std"][0])


def decoder(module: Any, text_proj: Any) -> Weights:
    state = dict(text_proj.state_dict())
    null = state["learned_classifier_free_guidance_embeddings"]
    return {**unet(module), **take(state, TEXT_PROJ, "", ""), "cf_param": null}


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + key: value for key, value in weights.items()}


def files(parts: dict[str, Any]) -> dict[str, Any]:
    """What each file holds, of the components of a diffusers pipeline."""
    weights, statistics = prior(parts["prior"])
    pair = {
        **prefixed("model_first_steps.", unet(parts["super_res_first"])),
        **prefixed("model_last_step.", unet(parts["super_res_last"])),
    }
    decoding = decoder(parts["decoder"], parts["text_proj"])
    return {
        "prior-ckpt-step=01000000-of-01000000.ckpt": {"state_dict": prefixed("model.", weights)},
        "decoder-ckpt-step=01000000-of-01000000.ckpt": {"state_dict": prefixed("model.", decoding)},
        "improved-sr-ckpt-step=1.2M.ckpt": {"state_dict": pair},
        "ViT-L-14_stats.th": statistics,
    }


def write(parts: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(parts).items():
        torch.save(content, folder / name)
    return folder
