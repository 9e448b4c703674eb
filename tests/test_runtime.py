"""Runtime: decisions follow options, then the environment, then the machine."""

import pytest
import torch
from torch import nn

from unclip import runtime
from unclip.errors import OptionError
from unclip.runtime import choose_runtime, place


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("DEVICE", "DTYPE", "COMPILE"):
        monkeypatch.delenv(f"UNCLIP_{name}", raising=False)
    for name in ("ONEDNN_MAX_CPU_ISA", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_option_wins_over_environment(monkeypatch):
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    assert choose_runtime("cpu").dtype is torch.float32
    assert choose_runtime("cpu", "bf16").dtype is torch.bfloat16


def test_bf16_is_not_chosen_when_the_libraries_are_held_to_avx2(monkeypatch):
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_runtime("cpu").dtype is torch.bfloat16
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert choose_runtime("cpu").dtype is torch.float32
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert choose_runtime("cpu").dtype is torch.float32


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"device": "gpu"}, "gpu"),
        ({"device": "meta"}, "meta"),
        ({"device": "cpu", "precision": "fp16"}, "fp16"),
    ],
)
def test_impossible_options_name_the_culprit(options, culprit):
    with pytest.raises(OptionError, match=culprit):
        choose_runtime(**options)


@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_each_of_several_processes_takes_its_own_gpu(monkeypatch, asked):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert choose_runtime(asked).device == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert choose_runtime(asked).device == torch.device("cuda:1")
    assert choose_runtime("cpu").device == torch.device("cpu")
    assert choose_runtime("cuda:0").device == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(OptionError, match=r"2 GPU\(s\)"):
        choose_runtime(asked)


@pytest.mark.skipif(torch.cuda.is_available(), reason="names an absent device")
def test_absent_device_is_an_error():
    with pytest.raises(OptionError, match="not present"):
        choose_runtime("cuda")


def test_environment_switch_is_checked(monkeypatch):
    monkeypatch.setenv("UNCLIP_COMPILE", "perhaps")
    with pytest.raises(OptionError, match="UNCLIP_COMPILE=perhaps"):
        choose_runtime("cpu")
    monkeypatch.setenv("UNCLIP_COMPILE", "on")
    assert choose_runtime("cpu").compile


def test_place_keeps_master_weights_in_training():
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3))
    chosen = choose_runtime("cpu", "bf16")
    place(net, chosen, training=True)
    assert net[0].weight.dtype is torch.float32
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    with chosen.autocast():
        assert net(torch.randn(1, 4, 8, 8)).dtype is torch.bfloat16
    place(net, chosen)
    assert net[0].weight.dtype is torch.bfloat16
