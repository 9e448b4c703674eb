"""Modules built without memory and filled from disk, so that one copy of the weights exists.

A tensor at a time is read into a buffer and converted to where and what it will be. It knows no
stage.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from unclip.errors import CheckpointError
from unclip.storage.entries import Stored
from unclip.storage.safetensors import read_safetensors


class _Undrawn(TorchFunctionMode):
    """Draws no numbers for parameters that have no memory.

    They would not be kept, but PyTorch would import its compiler to work out their shape: a
    fifth of the time in which a command draws its first picture.
    """

    DRAWING = frozenset(
        {Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}
    )

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.DRAWING:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def without_memory() -> Iterator[None]:
    """Parameters of modules built in this context have no memory (they are on ``meta``).

    Buffers are as ever: most are computed, not stored.
    """
    here = threading.get_ident()

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if parameter is None or threading.get_ident() != here:
            return None
        return nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    # PyTorch's annotation forgets that what a hook returns is registered instead.
    hook = register_module_parameter_registration_hook(on_meta)  # type: ignore[arg-type]
    try:
        with _Undrawn():
            yield
    finally:
        hook.remove()


@torch.no_grad()
def fill(
    module: nn.Module,
    file: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
    *,
    prefix: str = "",
) -> None:
    """Read the state dict of ``module`` from a safetensors file, strictly.

    Args:
        module: built in `without_memory`, or as ever.
        file: holds exactly its state dict, in any dtype; ``prefix`` apart.
        dtype: of the parameters afterwards. Buffers keep theirs.
        device: of the parameters afterwards.
        memory_format: of parameters with four axes.
        prefix: what the names of its tensors start with, in a file that holds others too.

    Raises:
        CheckpointError: a tensor is missing, misshapen or one too many; it is named.
    """
    wanted = module.state_dict(keep_vars=True)
    entries = check_file(wanted, file, prefix)
    longest = max((entry.length for entry in entries.values()), default=0)
    scratch = torch.empty(longest, dtype=torch.uint8)
    for key, tensor in wanted.items():
        value = entries[key].read(scratch)
        if not isinstance(tensor, nn.Parameter):
            tensor.copy_(value)
            continue
        layout = memory_format if value.ndim == 4 else torch.contiguous_format
        made = torch.empty(value.shape, dtype=dtype, device=device, memory_format=layout)
        owner, _, name = key.rpartition(".")
        parameter = nn.Parameter(made.copy_(value), tensor.requires_grad)
        setattr(module.get_submodule(owner), name, parameter)


def check_file(state: Mapping[str, Tensor], file: Path, prefix: str = "") -> dict[str, Stored]:
    """Hold the names and shapes in a safetensors file against a state dict; read no tensor.

    Returns:
        The tensors whose names start with ``prefix``, by the rest of their names.

    Raises:
        CheckpointError: a tensor is missing, misshapen or one too many; it is named.
    """
    entries = {
        key.removeprefix(prefix): entry
        for key, entry in read_safetensors(file).items()
        if key.startswith(prefix)
    }
    for key, tensor in state.items():
        if key not in entries:
            raise CheckpointError(f"{file}: tensor {prefix}{key} is missing")
        if entries[key].shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{file}: tensor {prefix}{key} has shape {entries[key].shape}, not "
                f"{tuple(tensor.shape)}"
            )
    if extra := sorted(set(entries) - set(state)):
        raise CheckpointError(f"{file}: tensor {prefix}{extra[0]} is not part of this stage")
    return entries
