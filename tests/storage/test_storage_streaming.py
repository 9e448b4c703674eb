"""Weights read into place: what they become, and how much memory that takes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unclip.errors import CheckpointError
from unclip.storage.content import WHOLE, digest_of
from unclip.storage.streaming import fill, without_memory


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3)
        self.scale = nn.Parameter(torch.randn(3))
        self.register_buffer("table", torch.zeros(5))
        self.register_buffer("computed", torch.arange(4.0), persistent=False)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filled_is_what_copying_and_casting_would_give(stored, dtype, tmp_path: Path) -> None:
    source = Small().to(stored)
    source.table = torch.rand(5)
    save_file(source.state_dict(), tmp_path / "weights")
    with without_memory():
        module = Small()
    assert module.conv.weight.is_meta
    fill(module, tmp_path / "weights", dtype, memory_format=torch.channels_last)
    for name, parameter in source.named_parameters():
        filled = module.get_parameter(name)
        assert filled.dtype == dtype
        assert torch.equal(filled, parameter.to(dtype))
    assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(module.table, source.table), "buffers keep their dtype"
    assert torch.equal(module.computed, torch.arange(4.0))


def test_modules_built_afterwards_have_memory() -> None:
    with without_memory():
        assert nn.Linear(2, 2).weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_what_has_memory_is_drawn_as_ever() -> None:
    torch.manual_seed(0)
    with without_memory():
        nn.Linear(4, 4)
        table = nn.init.normal_(torch.zeros(1000))
        row = torch.zeros(1000).uniform_()
    assert abs(table.std().item() - 1) < 0.1
    assert abs(row.mean().item() - 0.5) < 0.1
    assert nn.Linear(400, 4).weight.std() > 0.01, "and so is all that is built afterwards"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": None}, "tensor scale is missing"),
        ({"scale": torch.zeros(4)}, r"tensor scale has shape \(4,\), not \(3,\)"),
        ({"more": torch.zeros(1)}, "tensor more is not part"),
    ],
)
def test_what_does_not_fit_is_named(change, message, tmp_path: Path) -> None:
    state = {k: v for k, v in (Small().state_dict() | change).items() if v is not None}
    save_file(state, tmp_path / "weights")
    with pytest.raises(CheckpointError, match=message):
        fill(Small(), tmp_path / "weights")


SCRIPT = """
import sys, torch
from pathlib import Path
from torch import nn
from unclip.packing import can_pack
from unclip.runtime import Runtime, place
from unclip.storage.memory import given_back_when_freed
from unclip.storage.streaming import fill, without_memory

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024

packed = can_pack(torch.bfloat16)
warm = nn.Sequential(nn.Linear(64, 64)).bfloat16()
place(warm, Runtime(torch.device("cpu"), torch.bfloat16, True, False, packed))
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
with given_back_when_freed():
    with without_memory():
        network = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(64)))
    fill(network, Path(sys.argv[1]), torch.bfloat16, memory_format=torch.channels_last)
    place(network, Runtime(torch.device("cpu"), torch.bfloat16, True, False, packed))
held = status("VmRSS") - before
peak = status("VmHWM") - before
del network
print(peak, held, status("VmRSS") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_a_stage_takes_its_own_size(tmp_path: Path) -> None:
    size = 64 * 1024 * 1024 * 2
    save_file(
        {f"{i}.weight": torch.ones(1024, 1024, dtype=torch.float32) for i in range(64)},
        tmp_path / "weights",
    )
    arguments = [sys.executable, "-c", SCRIPT, str(tmp_path / "weights")]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    peak, held, left = (int(number) for number in done.stdout.split())
    assert size <= peak <= 1.15 * size, "as it is stored, it takes twice its size"
    assert held <= 1.1 * size
    assert left <= 0.1 * size


def test_a_digest_follows_any_tensor_of_a_large_file(tmp_path: Path) -> None:
    count = WHOLE // 4 + 4096
    tensors = {"a": torch.zeros(count), "b": torch.zeros(3), "c": torch.zeros(70_000)}
    seen = set()
    for changed in (None, "a", "b", "c"):
        file = tmp_path / f"{changed}"
        save_file({k: v + 1 if k == changed else v for k, v in tensors.items()}, file)
        seen.add(digest_of(file))
        file.unlink()
    assert len(seen) == 4
