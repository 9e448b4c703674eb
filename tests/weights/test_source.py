"""Sources: which files are chosen, and the Hub, played by a server of this machine."""

import json

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from unclip.errors import CheckpointError
from unclip.weights.source import open_source


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return open_source(str(folder))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.fp16.safetensors", "model.safetensors"], ["model.safetensors"]),
        (["model.fp16.safetensors", "pytorch_model.bin"], ["model.fp16.safetensors"]),
        (["model.safetensors", "open_clip_model.safetensors"], ["open_clip_model.safetensors"]),
        (["model.safetensors", "open_clip_pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "training_args.bin", "scheduler.bin"], ["pytorch_model.bin"]),
        (["epoch_3.pt", "results.txt"], ["epoch_3.pt"]),
        (["a.pt", "b.pt"], []),
        (["README.md"], []),
        (
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
            ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"],
        ),
        (
            [
                f"diffusion_pytorch_model{part}-of-00002.safetensors"
                for part in (".fp16-00001", ".fp16-00002")
            ],
            [
                f"diffusion_pytorch_model{part}-of-00002.safetensors"
                for part in (".fp16-00001", ".fp16-00002")
            ],
        ),
        (
            [f"model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)],
            [f"model-0000{i}-of-00002.fp16.safetensors" for i in (1, 2)],
        ),
    ],
)
def test_the_right_files_are_chosen(names, chosen, tmp_path):
    source = files(tmp_path, *(f"unet/{name}" for name in names))
    assert list(source.weights("unet")) == [f"unet/{name}" for name in chosen]
    assert source.weights("") == ()


def test_a_missing_shard_is_named(tmp_path):
    source = files(tmp_path, "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors")
    with pytest.raises(
        CheckpointError, match=r"shard model-00002-of-00003\.safetensors is missing"
    ):
        source.tensors()


def test_shards_and_their_index(tmp_path):
    for i in (1, 2):
        shard = {f"x{i}": torch.full((2,), float(i))}
        save_file(shard, tmp_path / f"model-0000{i}-of-00002.safetensors")
    index = {"weight_map": {f"x{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in (tmp_path, tmp_path / "model.safetensors.index.json"):
        tensors = open_source(str(name)).tensors()
        assert {name: float(tensors[name][0]) for name in tensors} == {"x1": 1, "x2": 2}
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="shard"):
        open_source(str(tmp_path / "model.safetensors.index.json")).tensors()


@pytest.mark.parametrize(
    ("head", "licence"),
    [
        ("---\nlicense: creativeml-openrail-m\ntags: []\n---\n", "creativeml-openrail-m"),
        ('---\nlicense: other\nlicense_name: "my-licence"\n---\n', "my-licence"),
        ("# no head\nlicense: mit\n", ""),
    ],
)
def test_the_licence_is_that_of_the_model_card(head, licence, tmp_path):
    (tmp_path / "README.md").write_text(head)
    assert open_source(str(tmp_path)).licence == licence


def test_names_that_are_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=r"gone\.pt does not exist; give a file, a folder"):
        open_source(str(tmp_path / "gone.pt"))
    with pytest.raises(CheckpointError, match="has no revision"):
        open_source(str(tmp_path), "main")
    with pytest.raises(CheckpointError, match=r"incomplete: it has no config\.json"):
        files(tmp_path, "x").json("config.json")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="no JSON object"):
        open_source(str(tmp_path)).json("config.json")


def test_the_hub_is_fetched_file_by_file_and_once(hub):
    source = open_source("us/model")
    assert source.files == ("config.json", "README.md")
    assert (source.revision, source.origin, source.licence) == (hub.commit, "us/model", "mit")
    assert not any("config.json" in path for path in hub.asked)  # nobody asked for it
    assert source.json("config.json") == {"a": 1}
    count = len(hub.asked)
    assert open_source("us/model", hub.commit).json("config.json") == {"a": 1}
    assert not any("resolve" in path for path in hub.asked[count:])  # it is in the cache


def test_without_a_network_the_cache_serves(hub):
    with pytest.raises(CheckpointError, match="us/model is not in the Hub's cache"):
        open_source("us/model", offline=True)
    open_source("us/model").path("config.json")
    hub.stop()
    for offline in (False, True):
        source = open_source("us/model", offline=offline)
        assert (source.files, source.revision) == (("config.json",), hub.commit)
        assert source.json("config.json") == {"a": 1}
    with pytest.raises(CheckpointError, match=r"us/model is incomplete: it has no README\.md"):
        source.path("README.md")


def test_the_environment_can_forbid_the_network(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no network may be used"):
        open_source("us/model")
    assert hub.asked == []


def test_no_network(hub):
    hub.stop()
    with pytest.raises(
        CheckpointError, match="us/model is not here, and the Hub cannot be reached"
    ):
        open_source("us/model")


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("us/nothing", None, "us/nothing is neither a file or folder here nor a repository"),
        ("us/model", "v9", "us/model has no revision 'v9'"),
        ("us/mod..el", None, r"us/mod\.\.el is neither a file or folder here nor a name the Hub"),
        ("us/gated", None, "us/gated wants its terms accepted"),
    ],
)
def test_what_the_hub_refuses(hub, name, revision, message):
    with pytest.raises(CheckpointError, match=message):
        open_source(name, revision)


def test_a_connection_lost_on_the_way(hub, monkeypatch):
    source = open_source("us/model")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's attempts
    hub.stop()
    with pytest.raises(CheckpointError, match=r"config\.json of us/model is not here, and the Hub"):
        source.path("config.json")


def test_a_transfer_that_breaks_off(hub, monkeypatch):
    def lost(*_, **__):
        raise RuntimeError("Data processing error: I/O error\nat line 3")

    source = open_source("us/model")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lost)
    with pytest.raises(
        CheckpointError, match=r"cannot be fetched: Data .* error; the same"
    ) as error:
        source.path("config.json")
    assert "\n" not in str(error.value)
