"""Every published format of CLIP, imported, against the library that wrote it.

Widths are chosen so that no mistake is caught by a shape: projections are square, heads are not 64
wide. All parameters are random.
"""

import json
import sys
import warnings
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from unclip.checkpoint import load_stage
from unclip.weights.convert import import_source
from unclip.weights.tensors import open_tensors

WIDTH, EMBEDDING, DEPTH, HEADS, SIZE, PATCH, CONTEXT = 32, 32, 2, 4, 32, 8, 12
LETTERS = [chr(97 + i) for i in range(26)]
WORDS = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    "ab",
    "<|startoftext|>",
    "<|endoftext|>",
]
END = len(WORDS) - 1
PROMPTS = ["abc", "", "hello world this is cut here"]
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}


def randomise(module, dtype=torch.float64):
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 11
            parameter.normal_(std=1.5 * fan_in**-0.5)
        for name, statistic in module.named_buffers():
            if name.endswith("running_mean"):
                statistic.normal_()
            elif name.endswith("running_var"):
                statistic.uniform_(0.5, 2)
    return module.eval().to(dtype)


def write_tokenizer(folder):
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")


def imported(source, tmp_path, dtype=torch.float64):
    """The imported stage at the precision of its file, which `load_stage` rounds to float32."""
    folder = import_source(source, tmp_path / "ours")
    stage = load_stage(folder).eval().to(dtype)
    stage.load_state_dict(dict(open_tensors([folder / "weights.safetensors"])))
    return stage


def assert_close(ours, theirs):
    assert theirs.std() > 0.05  # otherwise nothing is compared
    error = (ours - theirs).abs().max() / theirs.std()
    assert error <= TOLERANCE[theirs.dtype], error


def tokens(stage):
    ids, mask, cut = stage.tokenizer.encode(PROMPTS, CONTEXT)
    assert cut.tolist() == [False, False, True]
    assert ids[2, CONTEXT - 1] == END  # a long caption keeps its end
    return ids, mask


def pixels(dtype, size=SIZE):
    torch.manual_seed(4)
    return torch.randn(2, 3, size, size, dtype=dtype)


# --- transformers


def transformers_config(activations=("gelu", "quick_gelu"), end=END):
    shared = {
        "hidden_size": WIDTH,
        "intermediate_size": 72,
        "num_hidden_layers": DEPTH,
        "num_attention_heads": HEADS,
        "attention_dropout": 0.0,
        "projection_dim": EMBEDDING,
    }
    text = {"vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, "eos_token_id": end}
    return CLIPConfig(
        text_config={**shared, **text, "hidden_act": activations[0]},
        vision_config={
            **shared,
            "image_size": SIZE,
            "patch_size": PATCH,
            "hidden_act": activations[1],
        },
        projection_dim=EMBEDDING,
    )


def old_names(state, tower=""):
    """As transformers 4 wrote them: one tower keeps its prefix, positions have their ids."""
    prefixed = {
        name
        if name.startswith(("text_", "vision_", "visual_", "logit"))
        else f"{tower}{name}": value
        for name, value in state.items()
    }
    for prefix in ("text_model.", "vision_model."):
        key = f"{prefix}embeddings.position_embedding.weight"
        if key in prefixed:
            ids = torch.arange(len(prefixed[key]))[None]
            prefixed[f"{prefix}embeddings.position_ids"] = ids
    return prefixed


def save_transformers(model, folder, style):
    model.save_pretrained(folder)
    write_tokenizer(folder)
    if style == "new":
        return
    (folder / "model.safetensors").unlink()
    tower = {"CLIPTextModel": "text_model.", "CLIPVisionModel": "vision_model."}
    state = old_names(model.state_dict(), tower.get(type(model).__name__, ""))
    if style == "old bin":
        torch.save(state, folder / "pytorch_model.bin")
        return
    names = sorted(state)
    for part, keys in enumerate((names[::2], names[1::2]), start=1):  # shards, of a variant
        shard = {key: state[key].contiguous() for key in keys}
        save_file(shard, folder / f"model.fp16-{part:05}-of-00002.safetensors")


def text_of(model, ids, mask):
    tower = getattr(model, "text_model", model)
    output = tower(input_ids=ids, attention_mask=mask.long())
    projection = getattr(model, "text_projection", nn.Identity())
    return projection(output.pooler_output), output.last_hidden_state


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("style", ["new", "old bin", "old shards"])
@torch.no_grad()
def test_whole_clip_of_transformers(style, dtype, tmp_path):
    theirs = randomise(CLIPModel(transformers_config(end=2 if style == "old bin" else END)), dtype)
    save_transformers(theirs, tmp_path / "theirs", style)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing needs guessing
        ours = imported(tmp_path / "theirs", tmp_path, dtype)
    ids, mask = tokens(ours)
    text, states = text_of(theirs, ids, mask)
    embedding, ours_states = ours.network.text_tower()(ids, mask)
    assert_close(embedding, text)
    assert_close(ours_states[mask], states[mask])
    image = theirs.visual_projection(theirs.vision_model(pixels(dtype)).pooler_output)
    assert_close(ours.network.image_tower()(pixels(dtype)), image)
    assert ours.network.logit_scale == theirs.logit_scale


@pytest.mark.parametrize("style", ["new", "old bin"])
@pytest.mark.parametrize("kind", [CLIPTextModel, CLIPTextModelWithProjection])
@torch.no_grad()
def test_text_tower_of_transformers(kind, style, tmp_path):
    theirs = randomise(kind(transformers_config().text_config))
    save_transformers(theirs, tmp_path / "theirs", style)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = imported(tmp_path / "theirs", tmp_path)
    assert ["ends before" in str(w.message) for w in caught] == [True] * (kind is CLIPTextModel)
    ids, mask = tokens(ours)
    text, states = text_of(theirs, ids, mask)
    embedding, ours_states = ours.network.text_tower()(ids, mask)
    assert_close(embedding, text)
    assert_close(ours_states[mask], states[mask])
    assert ours.config.image is None


@pytest.mark.parametrize("style", ["new", "old bin"])
@pytest.mark.parametrize("kind", [CLIPVisionModel, CLIPVisionModelWithProjection])
@torch.no_grad()
def test_image_tower_of_transformers(kind, style, tmp_path):
    theirs = randomise(kind(transformers_config().vision_config))
    save_transformers(theirs, tmp_path / "theirs", style)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = imported(tmp_path / "theirs", tmp_path)
    output = theirs(pixel_values=pixels(torch.float64))
    image = output.pooler_output if kind is CLIPVisionModel else output.image_embeds
    assert_close(ours.network.image_tower()(pixels(torch.float64)), image)
    assert ours.config.text is None
    assert not (tmp_path / "ours/tokenizer.json").exists()


# --- open_clip and OpenAI


@pytest.fixture
def open_clip(monkeypatch):
    """open_clip imports torchvision for what it does not need here; there is no CPU build."""
    names = ["transforms", "transforms.functional", "ops", "ops.misc", "datasets"]
    for name in ["torchvision", *(f"torchvision.{name}" for name in names)]:
        monkeypatch.setitem(sys.modules, name, MagicMock(__spec__=None, __path__=[]))
    return pytest.importorskip("open_clip.model")


def open_clip_config(tower, quick):
    vision = {"image_size": SIZE, "width": WIDTH, "layers": DEPTH, "patch_size": PATCH}
    vision |= {"head_width": WIDTH // HEADS}
    if tower == "resnet":
        vision = {"image_size": 64, "width": 8, "layers": [1, 2, 1, 1], "head_width": 64}
    text = {"context_length": CONTEXT, "vocab_size": len(WORDS), "width": WIDTH}
    text |= {"heads": HEADS, "layers": DEPTH}
    config = {"embed_dim": EMBEDDING, "vision_cfg": vision, "text_cfg": text}
    return config | ({"quick_gelu": True} if quick else {})


def open_clip_model(open_clip, tower, quick, dtype=torch.float64, custom=False):
    config = open_clip_config(tower, quick)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    arguments = (EMBEDDING, config["vision_cfg"], config["text_cfg"], quick)
    return randomise(kind(*arguments), dtype), config


def assert_equals_open_clip(ours, theirs, dtype=torch.float64):
    ids, mask = tokens(ours)
    size = ours.config.image_tower().size
    assert_close(ours.network.text_tower()(ids, mask)[0], theirs.encode_text(ids))
    assert_close(
        ours.network.image_tower()(pixels(dtype, size)), theirs.encode_image(pixels(dtype, size))
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("tower", "quick"), [("vit", False), ("vit", True), ("resnet", False)])
@torch.no_grad()
def test_open_clip_with_its_config(open_clip, tower, quick, dtype, tmp_path):
    theirs, config = open_clip_model(open_clip, tower, quick, dtype)
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_tokenizer(folder)
    pixel = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "resize_mode": "squash"}
    values = {"model_cfg": config, "preprocess_cfg": pixel}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    state = {
        key: value.contiguous()
        for key, value in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")  # old files have no counters
    }
    save_file(state, folder / "open_clip_model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = imported(folder, tmp_path, dtype)
    assert_equals_open_clip(ours, theirs, dtype)
    assert (ours.config.mean, ours.config.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert ours.config.fit == "squash"


@torch.no_grad()
def test_open_clip_training_checkpoint_with_custom_text(open_clip, tmp_path):
    theirs, config = open_clip_model(open_clip, "vit", quick=True, custom=True)
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    assert "module.text.token_embedding.weight" in state
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1)
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, folder / "epoch_3.pt")
    assert_equals_open_clip(imported(folder, tmp_path), theirs)


def archive_of(state, path):
    """A TorchScript archive of modules whose attributes are these tensors, as OpenAI's are."""

    class Skeleton(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Skeleton()
    for key, value in state.items():
        *modules, leaf = key.split(".")
        place = root
        for name in modules:
            if name not in place._modules:
                place.add_module(name, Skeleton())
            place = place._modules[name]
        place.register_buffer(leaf, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the archives remain
        torch.jit.script(root).save(str(path))


@pytest.mark.parametrize("tower", ["vit", "resnet"])
@torch.no_grad()
def test_openai_archive(open_clip, tower, tmp_path):
    theirs, config = open_clip_model(open_clip, tower, quick=True, dtype=torch.float32)
    with torch.no_grad():  # OpenAI's matrices are float16, its norms float32
        for name, parameter in theirs.named_parameters():
            if "ln_" not in name and "bn" not in name:
                parameter.copy_(parameter.half())
    half = {name for name, _ in theirs.named_parameters() if "ln_" not in name and "bn" not in name}
    state = {
        key: value.half() if key in half else value.clone()
        for key, value in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    size = config["vision_cfg"]["image_size"]
    for mark, value in (
        ("input_resolution", size),
        ("context_length", CONTEXT),
        ("vocab_size", len(WORDS)),
    ):
        state[mark] = torch.tensor(value)
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_tokenizer(folder)
    archive_of(state, folder / "ViT-small.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = import_source(folder, tmp_path / "ours")
    stored = open_tensors([path / "weights.safetensors"])
    assert stored.dtype("network.text.tokens.weight") == torch.float16
    assert stored.dtype("network.text.norm.weight") == torch.float32
    config = json.loads((path / "config.json").read_text())["config"]
    assert config["text"]["activation"] == "quick_gelu"
    # Heads are 64 wide in every archive of OpenAI's; this toy of width 32 has one, open_clip four.
    assert config["text"]["heads"] == 1
    heads = (
        {"text": {"heads": HEADS}, "image": {"heads": HEADS}}
        if tower == "vit"
        else {"text": {"heads": HEADS}}
    )
    written = json.loads((path / "config.json").read_text())
    for name, fields in heads.items():
        written["config"][name] |= fields
    (path / "config.json").write_text(json.dumps(written))
    ours = load_stage(path).eval()
    assert_equals_open_clip(ours, theirs.float(), torch.float32)
