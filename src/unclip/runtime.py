"""Where and how networks compute: device, dtype, memory format, compilation, decided here alone.

An option given by the caller wins over the environment (``UNCLIP_DEVICE``, ``UNCLIP_DTYPE``,
``UNCLIP_COMPILE``), which wins over what the machine suggests.
"""

import os
import platform
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import nn

from unclip.errors import OptionError
from unclip.packing import can_pack, pack

Device = Literal["auto", "cuda", "mps", "cpu"] | str
Precision = Literal["auto", "bf16", "fp32"]

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_SWITCH = {"1": True, "on": True, "true": True, "0": False, "off": False, "false": False}
_WITHOUT_BF16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")

ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Runtime:
    """The decision, as plain facts. Build it with `choose_runtime`."""

    device: torch.device
    dtype: torch.dtype
    """bfloat16 or float32: of weights in inference, of autocast in training."""
    channels_last: bool
    """Store images and convolution weights as NHWC."""
    compile: bool
    """Compile networks with torch.compile."""
    packed: bool = False
    """In inference, keep weights in the layout the processor's kernels read."""

    @property
    def memory_format(self) -> torch.memory_format:
        """What to pass as ``memory_format`` for images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[None]:
        """Context in which float32 networks compute in this runtime's dtype."""
        enabled = self.dtype is not torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)


def choose_runtime(
    device: Device | None = None, precision: str | None = None, compile: bool | None = None
) -> Runtime:
    """Decide how to compute on this machine.

    Args:
        device: ``auto`` (best one present), ``cuda``, ``cuda:1``, ``mps`` or ``cpu``.
        precision: ``auto``, ``bf16`` or ``fp32``.
        compile: compile networks; off unless asked for, as it costs minutes at the start.

    Raises:
        OptionError: a device this machine lacks, or a word that is none of the above.
    """
    where = _device(device or os.environ.get("UNCLIP_DEVICE") or "auto")
    compiled = _switch("UNCLIP_COMPILE") if compile is None else compile
    dtype = _dtype(precision or os.environ.get("UNCLIP_DTYPE") or "auto", where)
    return Runtime(
        device=where,
        dtype=dtype,
        # Convolutions on Apple's MPS gain nothing from NHWC and have had errors with it.
        channels_last=where.type != "mps",
        compile=compiled,
        # The compiler lays weights out itself.
        packed=where.type == "cpu" and not compiled and can_pack(dtype),
    )


def place(module: ModuleT, runtime: Runtime, *, training: bool = False) -> ModuleT:
    """Move ``module`` to the runtime's device, dtype and memory format, in place.

    In training the weights stay float32 and `Runtime.autocast` lowers the computation. Where the
    runtime packs weights, a module placed for inference can no longer be trained. A stage
    is compiled through its ``network``, or the parts of one that is no single function (CLIP's
    towers); compilation in place keeps state-dict keys clean.
    """
    module.to(runtime.device, torch.float32 if training else runtime.dtype)
    if runtime.channels_last:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if runtime.packed and not training:
        pack(module)
    if runtime.compile:
        network = getattr(module, "network", module)
        callable_itself = type(network).forward is not nn.Module.forward
        for part in [network] if callable_itself else network.children():
            part.compile()
    return module


def has_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively, so that it is faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # bfloat16 on Apple GPUs depends on chip and macOS; it has to be asked for.
    return device.type == "cpu" and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    if platform.machine() in ("aarch64", "arm64"):
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    # Both libraries can be held below what the processor has (as benchmarks do).
    if torch.backends.cpu.get_cpu_capability() not in ("AVX512", "AVX512_BF16", "AMX"):
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BF16:
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _device(name: str) -> torch.device:
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((kind for kind in ("cuda", "mps") if present[kind]), "cpu")
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        # Of several processes (torchrun) each has its own GPU.
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise OptionError(f"device {name!r} is not known; use auto, cuda, mps or cpu") from None
    if device.type not in ("cuda", "mps", "cpu"):
        raise OptionError(f"device {name!r} is not supported; use auto, cuda, mps or cpu")
    if not present.get(device.type, True):
        raise OptionError(f"device {name!r} is not present here; use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"device {name!r}: this machine has {torch.cuda.device_count()} GPU(s)")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if has_bf16(device) else torch.float32
    if name not in _DTYPES:
        raise OptionError(f"precision {name!r} is not known; use auto, bf16 or fp32")
    return _DTYPES[name]


def _switch(variable: str) -> bool:
    value = os.environ.get(variable, "off").lower()
    if value not in _SWITCH:
        raise OptionError(f"{variable}={value}: use on or off")
    return _SWITCH[value]
