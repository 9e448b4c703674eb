"""The prior's transformer in diffusers' layout (PriorTransformer) and Karlo's -> our prior.

Kandinsky's and ECLIPSE's priors are PriorTransformers too.
"""

from collections.abc import Mapping
from typing import Any

from unclip.errors import CheckpointError
from unclip.nn.transformer import TransformerConfig
from unclip.prior.network import PriorNetworkConfig
from unclip.weights.adm import by_kind, plain
from unclip.weights.rename import Rule
from unclip.weights.tables import first, first_two, join
from unclip.weights.tensors import Tensors

EMPTY_PROMPT = 2
"""Tokens of the empty prompt: start and end."""
_HEAD = 64
"""Width of a head in Karlo's prior; the authors' weights do not tell it."""

_DIFFUSERS = {
    "time_embedding.linear_1": "time_in.linear_1",
    "time_embedding.linear_2": "time_in.linear_2",
    "proj_in": "noised_in",
    "embedding_proj": "text_in",
    "encoder_hidden_states_proj": "states_in",
    "norm_out": "norm",
    "proj_to_clip_embeddings": "out",
    "transformer_blocks.{n}.norm1": "transformer.blocks.{n}.norm_1",
    "transformer_blocks.{n}.norm3": "transformer.blocks.{n}.norm_2",
    "transformer_blocks.{n}.attn1.to_out.0": "transformer.blocks.{n}.attention.out",
    "transformer_blocks.{n}.ff.net.0.proj": "transformer.blocks.{n}.mlp.0",
    "transformer_blocks.{n}.ff.net.2": "transformer.blocks.{n}.mlp.2",
}
_AUTHORS = {
    "time_embed.0": "time_in.linear_1",
    "time_embed.2": "time_in.linear_2",
    "clip_img_proj": "noised_in",
    "text_emb_proj": "text_in",
    "text_enc_proj": "states_in",
    "final_ln": "norm",
    "out_proj": "out",
    "transformer.resblocks.{n}.ln_1": "transformer.blocks.{n}.norm_1",
    "transformer.resblocks.{n}.ln_2": "transformer.blocks.{n}.norm_2",
    "transformer.resblocks.{n}.attn.c_proj": "transformer.blocks.{n}.attention.out",
    "transformer.resblocks.{n}.mlp.c_fc": "transformer.blocks.{n}.mlp.0",
    "transformer.resblocks.{n}.mlp.c_proj": "transformer.blocks.{n}.mlp.2",
}


def diffusers_prior() -> list[Rule]:
    """Rules from a PriorTransformer to a `DiffusionPrior`, statistics included."""
    attention = "transformer_blocks.{n}.attn1."
    qkv = tuple(f"{attention}to_{kind}.{{leaf}}" for kind in "qkv")
    return [
        *plain(_DIFFUSERS, ours="network."),
        Rule(qkv, "network.transformer.blocks.{n}.attention.qkv.{leaf}", join),
        Rule("positional_embedding", "network.positions", first),
        Rule("prd_embedding", "network.final", first_two),
        Rule("clip_mean", "space.mean", first),
        Rule("clip_std", "space.std", first),
    ]


def authors_prior(config: PriorNetworkConfig, theirs: str = "") -> list[Rule]:
    """Rules from Karlo's own prior to a `DiffusionPrior`; statistics lie in a file of their own.

    Args:
        config: its shape, as from `authors_prior_config`.
        theirs: prefix of their names.
    """
    qkv = by_kind(config.transformer.heads, 3)
    block = f"{theirs}transformer.resblocks.{{n}}.attn.c_qkv.{{leaf}}"
    return [
        *plain(_AUTHORS, theirs, "network."),
        Rule(block, "network.transformer.blocks.{n}.attention.qkv.{leaf}", qkv),
        Rule(f"{theirs}positional_embedding", "network.positions", first),
        Rule(f"{theirs}prd_emb", "network.final", first_two),
    ]


def diffusers_prior_config(values: Mapping[str, Any], source: str) -> PriorNetworkConfig:
    """The shape of a PriorTransformer, from its config.json.

    Raises:
        CheckpointError: it has parts that ours does not.
    """
    expected = {
        "additional_embeddings": 4,
        "time_embed_act_fn": "silu",
        "norm_in_type": None,
        "embedding_proj_norm_type": None,
        "encoder_hid_proj_type": "linear",
        "added_emb_type": "prd",
        "time_embed_dim": None,
    }
    for name, value in expected.items():
        if values.get(name, value) != value:
            raise CheckpointError(
                f"{source}: {name} is {values[name]!r}; priors with {value!r} can be imported"
            )
    heads, embedding = values["num_attention_heads"], values["embedding_dim"]
    for name in ("embedding_proj_dim", "clip_embed_dim"):
        if (values.get(name) or embedding) != embedding:
            raise CheckpointError(f"{source}: {name} is {values[name]}, embedding_dim {embedding}")
    transformer = TransformerConfig(
        width=heads * values["attention_head_dim"], depth=values["num_layers"], heads=heads
    )
    return _config(transformer, embedding, values["num_embeddings"])


def authors_prior_config(tensors: Tensors, source: str, theirs: str = "") -> PriorNetworkConfig:
    """The shape of Karlo's own prior, from its tensors alone.

    Heads, which leave no trace in the weights, are taken to be 64 wide.

    Raises:
        CheckpointError: the tensors are not those of such a prior.
    """
    names = [f"{theirs}{name}" for name in ("positional_embedding", "out_proj.weight")]
    for name in names:
        if name not in tensors:
            raise CheckpointError(f"{source}: tensor {name} is missing")
    _, positions, width = tensors.shape(names[0])
    norms = (f"{theirs}transformer.resblocks.", ".ln_1.weight")
    depth = sum(key.startswith(norms[0]) and key.endswith(norms[1]) for key in tensors)
    transformer = TransformerConfig(width=width, depth=depth, heads=width // _HEAD)
    return _config(transformer, tensors.shape(names[1])[0], positions - 4)


def _config(transformer: TransformerConfig, embedding: int, context: int) -> PriorNetworkConfig:
    return PriorNetworkConfig(
        embedding=embedding,
        text_width=embedding,
        context=context,
        transformer=transformer,
        unconditional="stored",
        unconditional_tokens=EMPTY_PROMPT,
        text_scale=1,
    )
