"""Networks of full size without a checkpoint: built without memory, then filled at random."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
SPREAD = 0.02


def build(make: Callable[[], ModuleT], dtype: torch.dtype, channels_last: bool) -> ModuleT:
    """Make a network for inference in a dtype and memory format, never in another on the way.

    Zero-initialised layers are filled too: no side may profit from zeros.
    """
    with torch.device("meta"):
        network = make()
    memory = torch.channels_last if channels_last else torch.contiguous_format
    return fill(network.to(dtype).to_empty(device="cpu").to(memory_format=memory))


def fill(network: ModuleT) -> ModuleT:
    """Set every parameter at random, near what trained networks have, and freeze it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(std=SPREAD)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return network.eval().requires_grad_(False)


def parameters(network: nn.Module) -> float:
    """Millions of parameters."""
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 3)


def describe(network: nn.Module) -> dict[str, object]:
    """What a report says of a network: size, dtype, memory format."""
    weight = max(network.parameters(), key=lambda parameter: parameter.ndim * parameter.numel())
    last = weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return {
        "million_parameters": parameters(network),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "memory_format": "channels_last" if last else "contiguous",
        "threads": torch.get_num_threads(),
    }
