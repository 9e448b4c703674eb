"""Run a network whose weights never lie in memory together: each layer reads its own when called.

For what importing computes once, such as one embedding by an image tower of 7 GB.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unclip.weights.tensors import Tensors


@contextmanager
def streamed(network: nn.Module, tensors: Tensors) -> Iterator[None]:
    """Lend every layer of ``network`` its weights, in float32, for the time of each call.

    Args:
        network: built on the meta device, without buffers.
        tensors: its weights by the names of its state dict.
    """
    hooks = []
    for prefix, layer in network.named_modules():
        names = [name for name, _ in layer.named_parameters(recurse=False)]
        keys = {name: f"{prefix}.{name}" if prefix else name for name in names}

        def lend(layer: nn.Module, _: object, keys: dict[str, str] = keys) -> None:
            for name, key in keys.items():
                weight = nn.Parameter(tensors[key].float(), requires_grad=False)
                setattr(layer, name, weight)

        def take(layer: nn.Module, _: object, __: object, keys: dict[str, str] = keys) -> None:
            for name in keys:
                empty = torch.empty_like(getattr(layer, name), device="meta")
                setattr(layer, name, nn.Parameter(empty, requires_grad=False))

        if keys:
            hooks += [layer.register_forward_pre_hook(lend), layer.register_forward_hook(take)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
