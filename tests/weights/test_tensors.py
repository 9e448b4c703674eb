"""The readers: what they read, and that broken or hostile files are one clear error each."""

import io
import json
import os
import pickle
import warnings
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unclip.errors import CheckpointError
from unclip.storage.entries import Stored
from unclip.weights import formats
from unclip.weights.tensors import Tensors, open_tensors


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {
        "a.weight": torch.randn(3, 4),
        "b": torch.randn(5).bfloat16(),
        "half": torch.randn(2, 3).half(),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }


def assert_same(tensors, weights):
    assert set(tensors) == set(weights)
    for name, value in weights.items():
        assert (tensors.shape(name), tensors.dtype(name)) == (tuple(value.shape), value.dtype)
        assert torch.equal(tensors[name], value)


def write(path, value):
    if path.suffix == ".safetensors":
        save_file(value, path)
    else:
        torch.save(value, path, _use_new_zipfile_serialization=path.suffix != ".th")
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "th"])
def test_every_format_gives_the_same(suffix, weights, tmp_path):
    assert_same(open_tensors([write(tmp_path / f"x.{suffix}", weights)]), weights)


def test_views_in_a_pickle_are_read_as_they_are(tmp_path):
    base = torch.randn(6, 4)
    views = {
        "all": base,
        "columns": base[1:5, 1:3].T,
        "end": base[5, 3],
        "same": base[:1].expand(3, 4),
    }
    assert_same(open_tensors([write(tmp_path / "x.pt", views)]), views)


def test_wrappings_come_off(tmp_path):
    inner = {"module.a": nn.Parameter(torch.ones(2)), "module.b": torch.zeros(1)}
    file = write(tmp_path / "x.ckpt", {"epoch": 2, "optimizer": {}, "state_dict": inner})
    assert set(open_tensors([file])) == {"a", "b"}
    pair = write(tmp_path / "stats.th", (torch.zeros(3), torch.ones(3)))
    assert_same(open_tensors([pair]), {"0": torch.zeros(3), "1": torch.ones(3)})


def test_reading_takes_the_memory_of_one_tensor(tmp_path, monkeypatch):
    reads = []
    real = Stored.read

    def read(self, *arguments):
        reads.append(self.shape)
        return real(self, *arguments)

    monkeypatch.setattr(Stored, "read", read)
    weights = {name: torch.full((size,), 1.0) for name, size in (("a", 10), ("b", 20), ("c", 30))}
    files = [write(tmp_path / "x.safetensors", weights), write(tmp_path / "x.bin", weights)]
    for file in files:
        tensors = open_tensors([file])
        assert set(reads) <= {(10,)}  # what checks types in tests looks at the first
        assert torch.equal(tensors["b"], weights["b"])
        assert (20,) in reads
        assert (30,) not in reads
        reads.clear()


def test_views_of_tensors(weights):
    tensors = Tensors.of(weights)
    assert set(tensors.without_prefix("a.")) == {"weight"}
    both = tensors | Tensors.of({"b": torch.ones(1), "c": torch.ones(2)})
    assert torch.equal(both["b"], torch.ones(1))
    assert len(both) == len(weights) + 1
    assert tensors.shapes_only()["a.weight"].device.type == "meta"


def cut(path, count):
    path.write_bytes(path.read_bytes()[:-count])
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("count", [1, 40, 300])
def test_truncated_files_are_damaged(suffix, count, weights, tmp_path):
    file = cut(write(tmp_path / f"x.{suffix}", weights), count)
    with pytest.raises(CheckpointError, match=r"x\.\w+ is damaged.*fetch it again"):
        open_tensors([file])


def header(tmp_path, entries, data=b"\0" * 16):
    text = json.dumps(entries).encode()
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return file


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4]},
        {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]},
        [],
    ],
)
def test_headers_that_lie_are_damage(entry, tmp_path):
    with pytest.raises(CheckpointError, match="damaged"):
        open_tensors([header(tmp_path, {"a": entry})])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<html>not found</html>", "no format"),
        (b"", "no format"),
        ((2**40).to_bytes(8, "little") + b"{}", "header"),
        (b"PK\3\4broken", "damaged"),
        (b"\x80\x02broken", "damaged|holds"),
    ],
)
def test_what_is_no_weights(content, message, tmp_path):
    file = tmp_path / "x.bin"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_tensors([file])


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_never_run(zipped, tmp_path):
    trap = tmp_path / "executed"
    content = {"state_dict": {"a": torch.ones(2)}, "callback": Bomb(trap)}
    file = tmp_path / "x.pt"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"x\.pt holds (code|what).*never run"):
        open_tensors([file])
    assert not trap.exists()
    torch.load(file, weights_only=False)  # the trap works
    assert trap.exists()


def test_old_torch_reads_no_pickles(weights, tmp_path, monkeypatch):
    file = write(tmp_path / "x.bin", weights)
    monkeypatch.setattr(formats.torch, "__version__", "2.9.1")
    with pytest.raises(CheckpointError, match=r"install torch>=2\.10"):
        open_tensors([file])
    assert_same(open_tensors([write(tmp_path / "x.safetensors", weights)]), weights)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.register_buffer("resolution", torch.tensor(224))
        self.scale = nn.Parameter(torch.randn(2, 3).half().T)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture
def archive(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; the archives remain
        module = Block()
        torch.jit.script(module).save(str(tmp_path / "x.pt"))
    return tmp_path / "x.pt", module.state_dict()


def test_torchscript_archives(archive, monkeypatch):
    file, state = archive
    monkeypatch.setattr(torch.jit, "load", None)
    monkeypatch.setattr(torch, "load", None)
    assert_same(open_tensors([file]), {name: value.clone() for name, value in state.items()})


def rewritten(file, name, change):
    """The archive with one of its entries changed."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for entry, data in entries.items():
            archive.writestr(entry, change(data) if entry.endswith(name) else data)


def test_code_in_a_torchscript_archive_is_never_run(archive, tmp_path):
    file, _ = archive
    trap = tmp_path / "executed"
    rewritten(file, "/data.pkl", lambda _: pickle.dumps({"a": Bomb(trap)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"code \(posix\.mkdir\), which is never run"):
        open_tensors([file])
    assert not trap.exists()


def test_allowed_names_cannot_be_bent(archive, tmp_path):
    """A name with dots would walk from an allowed module to anything; REDUCE calls nothing else."""
    file, _ = archive
    for stream in (
        b"\x80\x04\x8c\x0ctorch._utils\x8c\x0c__builtins__\x93.",
        b"\x80\x04\x8c\x05torch\x8c\x10os.system.popens\x93.",
        b"cbuiltins\neval\n(S'1'\ntR.",
    ):
        rewritten(file, "/data.pkl", lambda _, stream=stream: stream)
        with pytest.raises(CheckpointError, match="holds code"):
            open_tensors([file])


@pytest.mark.parametrize(
    "change", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"\x80\x02N."]
)
def test_damaged_torchscript_archives(archive, change):
    file, _ = archive
    rewritten(file, "/data.pkl", change)
    with pytest.raises(CheckpointError, match=r"x\.pt (is damaged|holds no tensors)"):
        open_tensors([file])


def test_torchscript_data_cut_short(archive):
    file, _ = archive
    rewritten(file, "/data/0", lambda data: data[:1])
    with pytest.raises(CheckpointError, match="damaged"):
        open_tensors([file])


def test_strings_of_a_pickle_without_loading_it(tmp_path):
    for zipped in (True, False):
        file = tmp_path / "x.pt"
        content = {"net.name": torch.ones(1), "x": Bomb(tmp_path / "executed")}
        torch.save(content, file, _use_new_zipfile_serialization=zipped)
        assert "net.name" in list(formats.strings_in_pickle(file))
    file.write_bytes(io.BytesIO(b"nothing").read())
    assert list(formats.strings_in_pickle(file)) == []
    assert not (tmp_path / "executed").exists()
