"""Networks of one stage that never work at the same time: in memory is the one at work.

It knows neither stages nor files.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn


def take_turns(owner: nn.Module, load: Callable[[str, nn.Module], None]) -> None:
    """Let the children of ``owner``, built in `without_memory`, be in memory one at a time.

    The first is loaded now. Whenever one is called that has no memory, the others lose theirs and
    it is loaded.

    Args:
        owner: its children are called one after another. It keeps nothing itself.
        load: fills and places the child of a name.
    """
    # Children that referred to their owner would not be freed as soon as nothing else does.
    whole = weakref.ref(owner)

    def turn(name: str, child: nn.Module, *_: Any) -> None:
        if not next(child.parameters()).is_meta:
            return
        present = whole()
        assert present is not None, "a network outlived the stage it is part of"
        for other in present.children():
            _forget(other)
        load(name, child)

    for position, (name, child) in enumerate(owner.named_children()):
        child.register_forward_pre_hook(partial(turn, name))
        if position == 0:
            load(name, child)


def _forget(network: nn.Module) -> None:
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            bare = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            setattr(module, name, nn.Parameter(bare, requires_grad=parameter.requires_grad))
