"""CLIP's tensor names as OpenAI, open_clip and transformers write them, against ours."""

import torch
from torch import Tensor

from unclip.weights.rename import Rule
from unclip.weights.tables import join, transpose
from unclip.weights.tensors import Tensors

IMAGE, TEXT = "network.image.", "network.text."


def scalar(value: Tensor) -> Tensor:
    """A scale may be stored as a scalar or as one element."""
    return value.reshape(())


def _openai_blocks(theirs: str, ours: str) -> list[Rule]:
    block, mine = f"{theirs}transformer.resblocks.{{n}}.", f"{ours}transformer.blocks.{{n}}."
    return [
        Rule(f"{block}attn.in_proj_{{kind}}", f"{mine}attention.qkv.{{kind}}"),
        Rule(f"{block}attn.out_proj.{{kind}}", f"{mine}attention.out.{{kind}}"),
        Rule(f"{block}ln_{{i}}.{{kind}}", f"{mine}norm_{{i}}.{{kind}}"),
        Rule(f"{block}mlp.c_fc.{{kind}}", f"{mine}mlp.0.{{kind}}"),
        Rule(f"{block}mlp.c_proj.{{kind}}", f"{mine}mlp.2.{{kind}}"),
        Rule(f"{block}attn_mask"),
    ]


OPENAI_TEXT = [
    Rule("token_embedding.weight", f"{TEXT}tokens.weight"),
    Rule("positional_embedding", f"{TEXT}positions"),
    *_openai_blocks("", TEXT),
    Rule("ln_final.{kind}", f"{TEXT}norm.{{kind}}"),
    Rule("text_projection", f"{TEXT}projection.weight", transpose),
    Rule("text_projection.weight", f"{TEXT}projection.weight"),
    *(Rule(name) for name in ("attn_mask", "input_resolution", "context_length", "vocab_size")),
    Rule("logit_scale", "network.logit_scale", scalar),
    Rule("logit_bias", "network.logit_bias", scalar),
]

OPENAI_VIT = [
    Rule("visual.conv1.weight", f"{IMAGE}patches.weight"),
    Rule("visual.class_embedding", f"{IMAGE}class_token"),
    Rule("visual.positional_embedding", f"{IMAGE}positions"),
    Rule("visual.ln_pre.{kind}", f"{IMAGE}norm_in.{{kind}}"),
    Rule("visual.ln_post.{kind}", f"{IMAGE}norm_out.{{kind}}"),
    Rule("visual.proj", f"{IMAGE}projection.weight", transpose),
    *_openai_blocks("visual.", IMAGE),
]

OPENAI_RESNET = [
    *(
        Rule(f"visual.{theirs}{i + 1}.{{kind}}", f"{IMAGE}stem.{3 * i + offset}.{{kind}}")
        for i in range(3)
        for offset, theirs in enumerate(("conv", "bn"))
    ),
    *(
        Rule(f"visual.layer{stage + 1}.{{n}}.{theirs}", f"{IMAGE}stages.{stage}.{{n}}.{ours}")
        for stage in range(4)
        for theirs, ours in (
            ("conv{i}.{kind}", "conv_{i}.{kind}"),
            ("bn{i}.{kind}", "norm_{i}.{kind}"),
            ("downsample.0.{kind}", "shortcut.1.{kind}"),
            ("downsample.1.{kind}", "shortcut.2.{kind}"),
        )
    ),
    Rule("visual.attnpool.positional_embedding", f"{IMAGE}pool.positions"),
    *(
        Rule(f"visual.attnpool.{theirs}_proj.{{kind}}", f"{IMAGE}pool.{ours}.{{kind}}")
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("c", "projection"))
    ),
]


def _transformers_blocks(theirs: str, ours: str) -> list[Rule]:
    block, mine = f"{theirs}encoder.layers.{{n}}.", f"{ours}transformer.blocks.{{n}}."
    return [
        Rule(
            tuple(f"{block}self_attn.{letter}_proj.{{kind}}" for letter in "qkv"),
            f"{mine}attention.qkv.{{kind}}",
            join,
        ),
        Rule(f"{block}self_attn.out_proj.{{kind}}", f"{mine}attention.out.{{kind}}"),
        Rule(f"{block}layer_norm{{i}}.{{kind}}", f"{mine}norm_{{i}}.{{kind}}"),
        Rule(f"{block}mlp.fc1.{{kind}}", f"{mine}mlp.0.{{kind}}"),
        Rule(f"{block}mlp.fc2.{{kind}}", f"{mine}mlp.2.{{kind}}"),
        Rule(f"{theirs}embeddings.position_embedding.weight", f"{ours}positions"),
        Rule(f"{theirs}embeddings.position_ids"),
    ]


TRANSFORMERS_TEXT = [
    Rule("text_model.embeddings.token_embedding.weight", f"{TEXT}tokens.weight"),
    *_transformers_blocks("text_model.", TEXT),
    Rule("text_model.final_layer_norm.{kind}", f"{TEXT}norm.{{kind}}"),
    Rule("text_projection.weight", f"{TEXT}projection.weight"),
]

TRANSFORMERS_IMAGE = [
    Rule("vision_model.embeddings.patch_embedding.weight", f"{IMAGE}patches.weight"),
    Rule("vision_model.embeddings.class_embedding", f"{IMAGE}class_token"),
    Rule("vision_model.pre_layrnorm.{kind}", f"{IMAGE}norm_in.{{kind}}"),
    Rule("vision_model.post_layernorm.{kind}", f"{IMAGE}norm_out.{{kind}}"),
    *_transformers_blocks("vision_model.", IMAGE),
    Rule("visual_projection.weight", f"{IMAGE}projection.weight"),
]

TRANSFORMERS_SCALE = [
    Rule("logit_scale", "network.logit_scale", scalar),
]


def is_transformers(names: Tensors) -> bool:
    """Whether CLIP weights are named as transformers names them, 4 or 5."""
    return any(
        f"{prefix}embeddings.{leaf}" in names
        for prefix, leaf in (
            ("text_model.", "token_embedding.weight"),
            ("vision_model.", "class_embedding"),
            ("", "token_embedding.weight"),
            ("", "class_embedding"),
        )
    )


def is_openai(names: Tensors) -> bool:
    """Whether they are named as OpenAI and open_clip do."""
    text = "token_embedding.weight" in names or "text.token_embedding.weight" in names
    return text and any(name.startswith("visual.") for name in names)


def canonical_transformers(tensors: Tensors) -> Tensors:
    """With the prefixes that transformers 5 leaves out where it saves one tower alone."""
    bare = ("embeddings.", "encoder.", "final_layer_norm.", "pre_layrnorm.", "post_layernorm.")
    tower = "text_model." if "embeddings.token_embedding.weight" in tensors else "vision_model."
    return tensors.select(lambda name: tower + name if name.startswith(bare) else name)


def canonical_openai(tensors: Tensors) -> Tensors:
    """Without the prefix of open_clip's custom text towers, with all counters of BatchNorm."""
    plain = tensors.select(lambda name: name.removeprefix("text."))
    suffix = "running_mean"
    counters = {
        name.removesuffix(suffix) + "num_batches_tracked" for name in plain if name.endswith(suffix)
    }
    missing = counters - set(plain)
    return plain | Tensors.of({name: torch.zeros((), dtype=torch.int64) for name in missing})
