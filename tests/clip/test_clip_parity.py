"""The towers against transformers and open_clip, with every parameter random."""

import re
import sys
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel

from unclip.clip.network import ClipNetwork
from unclip.clip.resnet import ModifiedResNet, ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig

TEXT = TextConfig(context=12, width=32, depth=3, heads=4, vocabulary=60)
IMAGE = ViTConfig(size=32, patch=8, width=48, depth=3, heads=3)
RESNET = ModifiedResNetConfig(size=64, layers=(1, 2, 1, 1), width=8, heads=4)
END = 40
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}

OPENAI = [
    (r"^visual\.attnpool\.positional_embedding$", "image.pool.positions"),
    (r"^visual\.attnpool\.q_proj\.", "image.pool.query."),
    (r"^visual\.attnpool\.k_proj\.", "image.pool.key."),
    (r"^visual\.attnpool\.v_proj\.", "image.pool.value."),
    (r"^visual\.attnpool\.c_proj\.", "image.pool.projection."),
    (r"^visual\.layer1\.", "image.stages.0."),
    (r"^visual\.layer2\.", "image.stages.1."),
    (r"^visual\.layer3\.", "image.stages.2."),
    (r"^visual\.layer4\.", "image.stages.3."),
    (r"\.downsample\.0\.", ".shortcut.1."),
    (r"\.downsample\.1\.", ".shortcut.2."),
    (r"(stages\.\d+\.\d+\.)conv(\d)", r"\1conv_\2"),
    (r"(stages\.\d+\.\d+\.)bn(\d)", r"\1norm_\2"),
    (r"^visual\.class_embedding$", "image.class_token"),
    (r"^visual\.positional_embedding$", "image.positions"),
    (r"^visual\.ln_pre\.", "image.norm_in."),
    (r"^visual\.ln_post\.", "image.norm_out."),
    (r"^visual\.proj$", "image.projection.weight"),
    (r"^visual\.transformer\.", "image.transformer."),
    (r"^transformer\.", "text.transformer."),
    (r"\.resblocks\.", ".blocks."),
    (r"\.ln_(\d)\.", r".norm_\1."),
    (r"\.attn\.in_proj_", ".attention.qkv."),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.mlp\.c_fc\.", ".mlp.0."),
    (r"\.mlp\.c_proj\.", ".mlp.2."),
    (r"^token_embedding\.", "text.tokens."),
    (r"^positional_embedding$", "text.positions"),
    (r"^ln_final\.", "text.norm."),
    (r"^text_projection$", "text.projection.weight"),
]
VIT_STEM = [(r"^visual\.conv1\.", "image.patches.")]
RESNET_STEM = [
    (rf"^visual\.{kind}{i + 1}\.", f"image.stem.{3 * i + offset}.")
    for i in range(3)
    for offset, kind in enumerate(("conv", "bn"))
]


def from_openai(state, stem):
    renamed = {}
    for key, value in state.items():
        if key in ("visual.proj", "text_projection"):
            value = value.T
        for pattern, replacement in stem + OPENAI:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def from_transformers(state):
    renamed = {"logit_scale": state["logit_scale"]}
    for side, ours in (("text_model", "text"), ("vision_model", "image")):
        keys = {key: value for key, value in state.items() if key.startswith(side)}
        for key, value in keys.items():
            name = key.removeprefix(side + ".")
            layer = re.match(r"encoder\.layers\.(\d+)\.(.*)", name)
            if layer is None:
                names = {
                    "embeddings.token_embedding.weight": "tokens.weight",
                    "embeddings.position_embedding.weight": "positions",
                    "embeddings.class_embedding": "class_token",
                    "embeddings.patch_embedding.weight": "patches.weight",
                }
                name = names.get(name, name)
                name = name.replace("final_layer_norm", "norm")
                name = name.replace("pre_layrnorm", "norm_in").replace("post_layernorm", "norm_out")
                if not name.endswith("position_ids"):
                    renamed[f"{ours}.{name}"] = value
                continue
            prefix = f"{ours}.transformer.blocks.{layer[1]}."
            part, kind = layer[2].rsplit(".", 1)
            if part.endswith("q_proj"):
                names = [key.replace("q_proj", f"{letter}_proj") for letter in "qkv"]
                renamed[prefix + f"attention.qkv.{kind}"] = torch.cat([keys[n] for n in names])
            elif not part.endswith(("k_proj", "v_proj")):
                names = {
                    "self_attn.out_proj": "attention.out",
                    "layer_norm1": "norm_1",
                    "layer_norm2": "norm_2",
                    "mlp.fc1": "mlp.0",
                    "mlp.fc2": "mlp.2",
                }
                renamed[prefix + f"{names[part]}.{kind}"] = value
    renamed["text.projection.weight"] = state["text_projection.weight"]
    renamed["image.projection.weight"] = state["visual_projection.weight"]
    return renamed


def randomise(module):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 11
            parameter.normal_(std=1.5 * fan_in**-0.5)
        for name, statistic in module.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_()
            elif name.endswith("running_var"):
                statistic.uniform_(0.5, 2)
    return module.eval()


def captions():
    torch.manual_seed(1)
    ids = torch.randint(1, END, (3, TEXT.context))
    mask = torch.arange(TEXT.context) < torch.tensor([12, 2, 7])[:, None]
    ids[range(3), mask.sum(dim=1) - 1] = END
    return ids * mask, mask


def assert_close(ours, theirs):
    assert theirs.std() > 0.05  # otherwise nothing is compared
    error = (ours - theirs).abs().max() / theirs.std()
    assert error <= TOLERANCE[ours.dtype], error


@pytest.fixture
def open_clip(monkeypatch):
    """open_clip imports torchvision for what it does not need here; there is no CPU build."""
    names = ["transforms", "transforms.functional", "ops", "ops.misc", "datasets"]
    for name in ["torchvision", *(f"torchvision.{name}" for name in names)]:
        monkeypatch.setitem(sys.modules, name, MagicMock(__spec__=None, __path__=[]))
    return pytest.importorskip("open_clip.model")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_vit_and_text_equal_transformers(activation, dtype):
    shared = {"hidden_act": activation, "attention_dropout": 0.0}
    config = CLIPConfig(
        text_config={
            **shared,
            "vocab_size": TEXT.vocabulary,
            "hidden_size": TEXT.width,
            "intermediate_size": 4 * TEXT.width,
            "num_hidden_layers": TEXT.depth,
            "num_attention_heads": TEXT.heads,
            "max_position_embeddings": TEXT.context,
            "eos_token_id": END,
        },
        vision_config={
            **shared,
            "hidden_size": IMAGE.width,
            "intermediate_size": 4 * IMAGE.width,
            "num_hidden_layers": IMAGE.depth,
            "num_attention_heads": IMAGE.heads,
            "image_size": IMAGE.size,
            "patch_size": IMAGE.patch,
        },
        projection_dim=24,
    )
    theirs = randomise(CLIPModel(config)).to(dtype)
    ours = ClipNetwork(
        IMAGE.model_copy(update={"activation": activation}),
        TEXT.model_copy(update={"activation": activation}),
        24,
        0.0,
    ).to(dtype)
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    pixels = torch.randn(2, 3, 32, 32, dtype=dtype)
    ids, mask = captions()

    embedding, states = ours.eval().text(ids, mask)
    text = theirs.text_model(input_ids=ids, attention_mask=mask.long())
    assert_close(embedding, theirs.text_projection(text.pooler_output))
    assert_close(states[mask], text.last_hidden_state[mask])
    image = theirs.vision_model(pixel_values=pixels).pooler_output
    assert_close(ours.image.features(pixels), image)
    assert_close(ours.image(pixels), theirs.visual_projection(image))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("image", [IMAGE, RESNET], ids=["vit", "resnet"])
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_towers_equal_open_clip(open_clip, activation, image, dtype):
    vision = {"image_size": image.size, "width": image.width}
    if image is IMAGE:
        image = image.model_copy(update={"activation": activation})
        vision |= {"layers": image.depth, "patch_size": image.patch, "head_width": 16}
    else:  # its pool has a head for each 32 channels of the last stage
        image = image.model_copy(update={"heads": image.width * 32 // 64})
        vision |= {"layers": list(image.layers), "head_width": 64}
    text = {
        "context_length": TEXT.context,
        "vocab_size": TEXT.vocabulary,
        "width": TEXT.width,
        "heads": TEXT.heads,
        "layers": TEXT.depth,
    }
    theirs = randomise(open_clip.CLIP(24, vision, text, activation == "quick_gelu")).to(dtype)
    ours = ClipNetwork(image, TEXT.model_copy(update={"activation": activation}), 24, 0.0)
    stem = VIT_STEM if isinstance(image, ViTConfig) else RESNET_STEM
    ours.load_state_dict(from_openai(theirs.state_dict(), stem))
    ours = ours.to(dtype).eval()
    pixels = torch.randn(2, 3, image.size, image.size, dtype=dtype)
    ids, mask = captions()
    assert_close(ours.image(pixels), theirs.encode_image(pixels))
    assert_close(ours.text(ids, mask)[0], theirs.encode_text(ids))


@torch.no_grad()
def test_resnet_equals_its_description():
    network = randomise(ModifiedResNet(RESNET, 24)).double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert_close(network(x), described_resnet(network.state_dict(), x))


def described_resnet(w, x):
    """A ModifiedResNet in plain functions; the pool by torch's own multi-head attention."""

    def norm(name, x):
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(w[f"{name}.{n}"] for n in names))

    for i in range(3):
        x = functional.conv2d(x, w[f"stem.{3 * i}.weight"], stride=2 if i == 0 else 1, padding=1)
        x = functional.relu(norm(f"stem.{3 * i + 1}", x))
    x = functional.avg_pool2d(x, 2)
    for stage, depth in enumerate(RESNET.layers):
        for i in range(depth):
            at = f"stages.{stage}.{i}."
            y = functional.relu(norm(at + "norm_1", functional.conv2d(x, w[at + "conv_1.weight"])))
            y = functional.conv2d(y, w[at + "conv_2.weight"], padding=1)
            y = functional.relu(norm(at + "norm_2", y))
            if stage > 0 and i == 0:
                x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
            y = norm(at + "norm_3", functional.conv2d(y, w[at + "conv_3.weight"]))
            if i == 0:
                x = norm(at + "shortcut.2", functional.conv2d(x, w[at + "shortcut.1.weight"]))
            x = functional.relu(x + y)
    pool = nn.MultiheadAttention(x.shape[1], RESNET.heads, batch_first=True, dtype=x.dtype)
    parts = ("query", "key", "value")
    pool.in_proj_weight.copy_(torch.cat([w[f"pool.{part}.weight"] for part in parts]))
    pool.in_proj_bias.copy_(torch.cat([w[f"pool.{part}.bias"] for part in parts]))
    pool.out_proj.weight.copy_(torch.eye(x.shape[1]))
    pool.out_proj.bias.zero_()
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + w["pool.positions"]
    pooled = pool(x[:, :1], x, x, need_weights=False)[0][:, 0]
    return functional.linear(pooled, w["pool.projection.weight"], w["pool.projection.bias"])
