"""`unclip import` and foreign names: what is written, and that nothing is after an error."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

import unclip
from unclip.checkpoint import load_stage, read_card
from unclip.cli import run
from unclip.errors import CheckpointError
from unclip.loading import find
from unclip.types import finish
from unclip.weights import convert
from unclip.weights.convert import Writing, import_source, importing
from unclip.weights.writer import write_tensors

WORDS = ["a", "b", "a</w>", "b</w>", "ab", "<|startoftext|>", "<|endoftext|>"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    shared = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    shared |= {"num_attention_heads": 2, "projection_dim": 8}
    text = {**shared, "vocab_size": len(WORDS), "max_position_embeddings": 6, "eos_token_id": 6}
    vision = {**shared, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    CLIPModel(config).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A CLIP\n")
    return folder


@pytest.fixture
def source(saved, tmp_path):
    """A copy to be broken."""
    folder = tmp_path / "clip-source"
    folder.mkdir()
    for file in saved.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def change_weights(source, change):
    state = load_file(source / "model.safetensors")
    change(state)
    save_file(state, source / "model.safetensors")


def change_config(source, part, **values):
    config = json.loads((source / "config.json").read_text())
    config[part] |= values
    (source / "config.json").write_text(json.dumps(config))


def test_a_single_network_becomes_a_stage_folder(source, tmp_path):
    folder = import_source(source, tmp_path / "made/clip")
    assert {file.name for file in folder.iterdir()} == {
        "card.json",
        "config.json",
        "tokenizer.json",
        "weights.safetensors",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["clip"]  # nothing is left beside it
    stage = load_stage(folder)
    assert stage.config.identity == stage.identity()
    assert stage.tokenizer.encode(["ab"], 6)[0].tolist() == [[5, 0, 3, 6, 0, 0]]


def test_the_command_and_what_info_shows(source, tmp_path, capsys):
    dest = tmp_path / "clip"
    assert run(["import", str(source), str(dest)]) == 0
    assert "clip-transformers  licence: apache-2.0" in capsys.readouterr().out
    assert run(["info", str(dest), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["card"]["licence"] == "apache-2.0"
    assert (facts["card"]["source"], facts["card"]["family"]) == (
        "clip-source",
        "clip-transformers",
    )
    assert run(["info", str(dest)]) == 0
    shown = capsys.readouterr().out
    for word in ("apache-2.0", "clip-source", "clip-transformers"):
        assert word in shown


def test_nothing_is_overwritten(source, tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(CheckpointError, match="there exists and is never overwritten"):
        import_source(source, tmp_path / "there")


def test_foreign_names_are_converted_once(source, tmp_path, monkeypatch):
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "cache"))
    first = find(source)
    assert first.parent == tmp_path / "cache"
    real = convert.write_import
    monkeypatch.setattr(convert, "write_import", None)
    assert find(str(source)) == first
    monkeypatch.setattr(convert, "write_import", real)
    change_weights(source, lambda state: state["logit_scale"].add_(1))
    assert find(source) != first
    with pytest.raises(CheckpointError, match="single network, which draws nothing"):
        unclip.load(source)


def test_names_on_the_hub_are_converted_once_for_one_content(hub, saved, tmp_path, monkeypatch):
    """A README that changes is a commit, and no other model; without a network it is found too."""
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "converted"))
    hub.files = {file.name: file.read_bytes() for file in saved.iterdir()}
    first = find("us/model")
    assert read_card(first).revision == hub.commit
    real = convert.write_import
    monkeypatch.setattr(convert, "write_import", None)
    fetched = len([path for path in hub.asked if "resolve" in path])
    hub.commit = "d" * 40
    hub.files["README.md"] += b"Typos are mended.\n"
    assert find("us/model") == first
    assert len([path for path in hub.asked if "resolve" in path]) == fetched, "nothing is fetched"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find("us/model") == first
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    monkeypatch.setattr(convert, "write_import", real)
    hub.commit = "e" * 40
    hub.files["merges.txt"] += b"\n"
    second = find("us/model")
    assert second != first
    monkeypatch.setattr(convert, "write_import", None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find("us/model") == second


def test_of_a_hub_that_tells_no_contents_commits_are_told_apart(hub, saved, tmp_path, monkeypatch):
    monkeypatch.setenv("UNCLIP_CACHE", str(tmp_path / "converted"))
    hub.files = {file.name: file.read_bytes() for file in saved.iterdir()}
    hub.tells_contents = False
    first = find("us/model")
    hub.commit = "d" * 40
    second = find("us/model")
    assert first != second
    hub.tells_contents = True
    assert find("us/model") == second, "what was converted for this commit is not converted again"


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (
            lambda s: change_weights(s, lambda w: w.update(extra=torch.ones(1))),
            "tensor extra is not",
        ),
        (
            lambda s: change_weights(
                s, lambda w: w.pop("text_model.encoder.layers.0.self_attn.k_proj.bias")
            ),
            r"layers\.0\.self_attn\.k_proj\.bias is missing",
        ),
        (
            lambda s: change_weights(s, lambda w: w.pop("text_model.final_layer_norm.bias")),
            r"becomes network\.text\.norm\.bias",
        ),
        (
            lambda s: change_weights(s, lambda w: w.update(visual_projection=torch.ones(1))),
            "tensor visual_projection is not",
        ),
        (
            lambda s: change_weights(
                s, lambda w: w.update({"vision_model.post_layernorm.bias": torch.ones(9)})
            ),
            r"norm_out\.bias has shape \(9,\), not \(8,\)",
        ),
        (
            lambda s: change_config(s, "text_config", hidden_size=16),
            r"text\.width 16, its weights 8",
        ),
        (lambda s: change_config(s, "vision_config", num_hidden_layers=3), r"image\.depth 3"),
        (lambda s: change_config(s, "text_config", hidden_act="gelu_new"), "gelu_new"),
        (
            lambda s: change_config(s, "text_config", num_attention_heads=3),
            "not a multiple of heads",
        ),
        (lambda s: change_config(s, "vision_config", layer_norm_eps=1e-6), "LayerNorm"),
        (lambda s: (s / "config.json").write_text("{"), "cannot be read as JSON"),
        (lambda s: (s / "merges.txt").write_text("a b c\n"), r"merges\.txt is damaged"),
        (lambda s: (s / "vocab.json").unlink(), r"put tokenizer\.json, or vocab\.json and merges"),
        (lambda s: os.truncate(s / "model.safetensors", 900), "damaged"),
        (lambda s: (s / "model.safetensors").unlink(), "nor a checkpoint that can be imported"),
    ],
)
def test_broken_sources_leave_nothing(breaking, message, source, tmp_path):
    breaking(source)
    with pytest.raises(CheckpointError, match=message) as error:
        import_source(source, tmp_path / "made/clip")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("made/*")) + list(tmp_path.glob("made/.*"))


def test_a_full_disk(source, tmp_path, monkeypatch):
    real = Path.open

    def opened(path, mode="r", *arguments, **options):
        stream = real(path, mode, *arguments, **options)
        if mode == "wb" and path.name == "weights.safetensors":
            stream.write(b"half")
            stream.close()
            stream = real(Path("/dev/full"), mode)
        return stream

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(CheckpointError, match="cannot be written: no space left on the disk"):
        import_source(source, tmp_path / "made/clip")
    assert not list((tmp_path / "made").iterdir())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    "key", ["net.causal_transformer.layers.0.0.norm.g", "unets.0.init_conv.weight"]
)
def test_dalle2_pytorch_is_refused_with_advice(key, tmp_path):
    file = tmp_path / "latest.pth"
    torch.save({"model": {key: torch.ones(1)}, "version": Bomb(tmp_path / "executed")}, file)
    with pytest.raises(CheckpointError, match=r"a checkpoint of DALLE2-pytorch.*unclip train"):
        import_source(file, tmp_path / "made")
    assert not (tmp_path / "executed").exists()


def test_our_own_folders_need_no_import(source, tmp_path):
    folder = import_source(source, tmp_path / "clip")
    with pytest.raises(CheckpointError, match="a folder of unclip already"):
        import_source(folder, tmp_path / "again")


def test_names_that_are_no_model():
    with pytest.raises(CheckpointError, match=r"no model 'emojj'.*owner/name"):
        find("emojj")


def test_tensors_of_any_dtype_and_size_are_written(tmp_path):
    torch.manual_seed(0)
    state = {
        "odd": torch.randn(3).half(),
        "double": torch.randn(2).double(),
        "flag": torch.tensor([True, False, True]),
        "single": torch.randn(3, 5),
        "none": torch.zeros(0, 2),
        "scalar": torch.tensor(2.5),
        "brain": torch.randn(7).bfloat16(),
        "count": torch.tensor(9),
        "turned": torch.randn(4, 3).T,
    }
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    write_tensors(tmp_path / "x.safetensors", shapes, iter(state.items()), name="x")
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == state.keys()
    for name, value in state.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": torch.ones(2), "b": torch.ones(1), "c": torch.ones(1)}, "no place for c"),
        ({"a": torch.ones(2)}, "x is incomplete: nothing in it becomes b"),
        ({"a": torch.ones(3), "b": torch.ones(1)}, r"a has shape \(3,\), not \(2,\)"),
    ],
)
def test_a_written_file_holds_what_the_config_says(state, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        write_tensors(tmp_path / "x", {"a": (2,), "b": (1,)}, iter(state.items()), name="x")


def test_an_import_tells_its_parts_and_can_be_cancelled(source, tmp_path):
    steps = importing(source, tmp_path / "made/clip")
    assert next(steps) == Writing("converting", 0, 1)
    assert list((tmp_path / "made").iterdir()), "it is under way"
    steps.close()
    assert not list((tmp_path / "made").iterdir())
    assert finish(importing(source, tmp_path / "made/clip")) == tmp_path / "made/clip"


@pytest.fixture
def endless(source, tmp_path):
    """A conversion in a process of its own, which is under way and never ends."""
    never = (
        "import sys, time; from unclip.weights import convert; from unclip.cli import main; "
        "convert.write_tensors = lambda *a, **k: time.sleep(200); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", never, "import", str(source), str(tmp_path / "made/clip")]
    with subprocess.Popen(command) as process:
        while not list(tmp_path.glob("made/.clip-*/tokenizer.json")):
            assert process.poll() is None
            time.sleep(0.05)
        yield process
        process.kill()


def test_a_conversion_that_is_terminated_leaves_nothing(endless, tmp_path):
    endless.terminate()
    assert endless.wait() == 128 + signal.SIGTERM
    assert not list((tmp_path / "made").iterdir())


def test_what_a_killed_conversion_leaves_goes_with_the_next(endless, source, tmp_path):
    made = tmp_path / "made"
    (half,) = made.glob(".clip-*/tokenizer.json")
    import_source(source, made / "clip")
    assert half.is_file(), "while it runs it is left alone"
    endless.kill()
    assert endless.wait() == -signal.SIGKILL
    assert half.is_file()
    shutil.rmtree(made / "clip")
    import_source(source, made / "clip")
    assert [path.name for path in made.iterdir()] == ["clip"]
