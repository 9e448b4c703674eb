"""CLIP's config from shapes and from what is said; its tokenizer. Each guess is a warning."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from unclip.clip.architectures import ARCHITECTURES
from unclip.clip.network import ClipNetwork
from unclip.errors import CheckpointError
from unclip.weights import clip, clip_tokenizer
from unclip.weights.clip_said import said_by_open_clip
from unclip.weights.clip_shapes import Facts, Guessed, config_of
from unclip.weights.detect import detect
from unclip.weights.source import Source, open_source
from unclip.weights.tensors import Tensors


def shapes(width=32, hidden=128, image=True):
    tower = "network.image." if image else "network.text."
    block = f"{tower}transformer.blocks.0.mlp.0.weight"
    given = {
        block: (hidden, width),
        f"{tower}positions": (17 if image else 12, width),
        f"{tower}projection.weight": (24, width),
    }
    return given | (
        {f"{tower}patches.weight": (width, 3, 8, 8)}
        if image
        else {f"{tower}tokens.weight": (60, width)}
    )


@pytest.mark.parametrize(
    ("width", "head"), [(768, 64), (1024, 64), (1280, 80), (1408, 88), (1664, 104)]
)
def test_heads_of_the_image_tower_are_guessed_by_a_table(width, head):
    facts = Facts(image_activation="gelu")
    with pytest.warns(Guessed, match=f"heads of {head} channels"):
        config = config_of(shapes(width), facts, name="x")
    assert config.image_tower().heads * head == width


@pytest.mark.parametrize("usual", ["gelu", "quick_gelu"])
def test_an_unknown_gelu_is_a_warning(usual):
    facts = Facts(head_width=16, usual_activation=usual)
    with pytest.warns(Guessed, match=f"guessed {usual} in the image tower.*bring the config.json"):
        config = config_of(shapes(), facts, name="x")
    assert config.image_tower().activation == usual


def test_mlps_that_are_no_round_multiple():
    for width in (1664, 1408, 768, 33):
        for hidden in (8192, 6144, 4 * width, 101):
            facts = Facts(image_activation="gelu", image_heads=1)
            ratio = config_of(shapes(width, hidden), facts, name="x").image_tower().mlp_ratio
            assert int(width * ratio) == hidden


def test_text_heads_are_64_wide():
    config = config_of(shapes(512, image=False), Facts(text_activation="gelu"), name="x")
    assert config.text_tower().heads == 8


def in_memory(state):
    """A source whose weights are these."""
    source = Source("x", ("model.safetensors",), Path, origin="x")
    source._open["model.safetensors"] = Tensors.of(state)
    return source


def full_size(**config):
    with torch.device("meta"):
        return CLIPModel(CLIPConfig(**config)).state_dict()


L14 = {
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
    "vision_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "patch_size": 14,
    },
    "projection_dim": 768,
}


def test_the_structure_of_vit_l_14():
    state = full_size(**L14)
    source = in_memory(state)
    assert detect(source).name == "clip-transformers"
    with pytest.warns(Guessed):  # no config
        (part,) = detect(source).plan(source, "authors").parts
    known = ARCHITECTURES["ViT-L/14"]
    assert (part.config.image, part.config.text) == (known.image, known.text)
    with torch.device("meta"):
        ours = ClipNetwork(known.image, known.text, known.embedding, 0.0).state_dict()
    assert {name: tuple(value.shape) for name, value in part.tensors()} == {
        f"network.{name}": tuple(value.shape) for name, value in ours.items()
    }


def test_openais_vit_l_14_is_known_by_name():
    assert clip._openai_name(ARCHITECTURES["ViT-L/14"]) == "OpenAI ViT-L/14"
    assert clip._openai_name(ARCHITECTURES["ViT-L/14"].model_copy(update={"embedding": 1})) == ""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"visual.trunk.blocks.0.x": 1, "text.token_embedding.weight": 1}, "one of timm's"),
        ({"visual.conv1.weight": 1, "text.transformer.embeddings.x": 1}, "not that of CLIP"),
    ],
)
def test_foreign_towers_are_refused(state, message):
    with pytest.raises(CheckpointError, match=message):
        clip._table("x", Tensors.of({name: torch.ones(1) for name in state}))


@pytest.mark.parametrize(
    ("tower", "setting", "message"),
    [
        ("vision_cfg", {"timm_model_name": "vit_so400m"}, "timm's vit_so400m"),
        ("text_cfg", {"hf_model_name": "xlm-roberta-base"}, "xlm-roberta-base"),
        ("text_cfg", {"no_causal_mask": True}, "no_causal_mask"),
        ("text_cfg", {"pool_type": "last"}, "pool_type"),
        ("vision_cfg", {"attentional_pool": True}, "attentional_pool"),
        ("vision_cfg", {"no_ln_pre": True}, "no_ln_pre"),
        ("vision_cfg", {"act_kwargs": {"approximate": "tanh"}}, "act_kwargs"),
    ],
)
def test_settings_of_open_clip_that_we_do_not_have(tower, setting, message, tmp_path):
    config = {
        "embed_dim": 8,
        "vision_cfg": {"width": 8},
        "text_cfg": {"width": 8, "pool_type": "argmax"},
    }
    config[tower] |= setting
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(CheckpointError, match=message):
        said_by_open_clip(open_source(str(tmp_path)))


# --- tokenizers


@pytest.fixture(scope="module")
def merges():
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / clip_tokenizer.MERGES_GZ


@pytest.fixture(scope="module")
def public(merges):
    return clip_tokenizer.from_merges(merges)


def ids(tokenizer, text):
    row, mask, _ = tokenizer.encode([text], 77)
    return row[0, mask[0]].tolist()


def test_openais_vocabulary(public):
    assert (len(public), public.start, public.end) == (49_408, 49_406, 49_407)
    assert ids(public, "a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ids(public, "Hello  World!") == [49406, 3306, 1002, 256, 49407]
    assert ids(public, "") == [49406, 49407]


def test_a_long_prompt_ends_at_position_76(public):
    row, mask, cut = public.encode(["cat " * 100], 77)
    assert (row[0, 76], mask.all(), cut.all()) == (49407, True, True)


def test_all_kinds_of_files_give_one_tokenizer(public, tmp_path):
    table = json.loads(public._vocabulary.to_str())["model"]
    pairs = [tuple(pair) for pair in table["merges"]]
    theirs = CLIPTokenizer(vocab=table["vocab"], merges=pairs)
    new, old = tmp_path / "new", tmp_path / "old"
    theirs.save_pretrained(new)
    old.mkdir()
    (old / "vocab.json").write_text(json.dumps(table["vocab"]))
    (old / "merges.txt").write_text("#version: 0.2\n" + "\n".join(f"{a} {b}" for a, b in pairs))
    prompts = ["a photo of a cat", "Été à 北京 🍎 1234's", "don't  stop!!", "", "#hash ##  x"]
    expected = [theirs(prompt)["input_ids"] for prompt in prompts]
    for folder in (new, old):
        ours = clip_tokenizer.tokenizer_of(open_source(str(folder)), "", 49_408)
        assert [ids(ours, prompt) for prompt in prompts] == expected
    assert [ids(public, prompt) for prompt in prompts] == expected


def test_where_tokenizers_are_looked_for(merges, public, tmp_path, monkeypatch):
    tried = []

    def no_hub(name, *_, **options):
        tried.append((name, options))
        raise CheckpointError("no network")

    monkeypatch.setattr(clip_tokenizer, "open_source", no_hub)
    empty = open_source(str(tmp_path))
    found = clip_tokenizer.tokenizer_of(empty, "", 49_408)  # from the installed package
    assert ids(found, "a cat") == ids(public, "a cat")
    assert tried == [(clip_tokenizer.HUB, {"offline": False})]
    monkeypatch.setattr(clip_tokenizer, "CARRIERS", ("no_such_package",))
    with pytest.raises(
        CheckpointError, match=r"put tokenizer\.json, or vocab\.json and merges\.txt"
    ):
        clip_tokenizer.tokenizer_of(empty, "", 49_408)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / clip_tokenizer.MERGES_GZ).write_bytes(merges.read_bytes())
    tried.clear()
    clip_tokenizer.tokenizer_of(open_source(str(tmp_path)), "tokenizer", 49_408)
    assert tried == []
    with pytest.raises(CheckpointError, match="49408 tokens, its text tower 1000"):
        clip_tokenizer.tokenizer_of(open_source(str(tmp_path)), "tokenizer", 1000)


def test_a_damaged_table(tmp_path):
    (tmp_path / clip_tokenizer.MERGES_GZ).write_bytes(b"\x1f\x8b broken")
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        clip_tokenizer.tokenizer_of(open_source(str(tmp_path)), "", 49_408)
