"""What a rule may do to tensors, each with its inverse, so that a table serves export too."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unclip.weights.rename import Rule


def join(*parts: Tensor) -> Tensor:
    """Stack along the first axis: queries, keys and values of one attention, for instance."""
    return torch.cat(parts)


def halves(whole: Tensor) -> tuple[Tensor, ...]:
    """Undo `join` of two."""
    return tuple(part.contiguous() for part in whole.chunk(2))


def thirds(whole: Tensor) -> tuple[Tensor, ...]:
    """Undo `join` of three."""
    return tuple(part.contiguous() for part in whole.chunk(3))


def transpose(matrix: Tensor) -> Tensor:
    """Rows to columns; its own inverse."""
    return matrix.T.contiguous()


def first(tensor: Tensor) -> Tensor:
    """Drop a leading axis of one."""
    return tensor.squeeze(0)


def lead(tensor: Tensor) -> Tensor:
    """Undo `first`."""
    return tensor.unsqueeze(0)


def first_two(tensor: Tensor) -> Tensor:
    """Drop two leading axes of one."""
    return tensor[0, 0].contiguous()


def lead_two(tensor: Tensor) -> Tensor:
    """Undo `first_two`."""
    return tensor[None, None].contiguous()


_INVERSES: dict[Callable[..., Any], Callable[..., Any]] = {
    transpose: transpose,
    first: lead,
    first_two: lead_two,
}


def inverted(rules: Sequence[Rule]) -> list[Rule]:
    """The table from ours to theirs; where two rules make one of ours, the first is used."""
    return [_inverted(rule) for rule in rules if rule.theirs and rule.ours]


def _inverted(rule: Rule) -> Rule:
    change = rule.change
    if change is join:
        change = halves if len(rule.theirs) == 2 else thirds
    elif change is not None:
        change = _INVERSES[change]
    return Rule(rule.ours, rule.theirs, change)
