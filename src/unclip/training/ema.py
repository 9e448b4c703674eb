"""The moving average of the weights; its half-life is counted in images, not in steps (§1.10)."""

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def ema_decay(images: int, seen: int, half_life: float, ramp: float) -> float:
    """Decay of one update after ``images`` more images, ``seen`` in all.

    Early on the half-life is at most ``ramp`` of the images seen, so that the average does not
    remember the initial weights.
    """
    effective = min(half_life, ramp * seen)
    return 0.5 ** (images / effective) if effective > 0 else 0.0


class Ema:
    """A stage in evaluation mode that follows the one in training.

    Args:
        stage: in training. Its frozen parameters are shared, not copied.
        averaging: False shares all of them, so that no memory is spent on an average nobody wants.
    """

    def __init__(self, stage: nn.Module, averaging: bool = True) -> None:
        self.averaging = averaging
        shared = (
            [parameter for parameter in stage.parameters() if not parameter.requires_grad]
            if averaging
            else chain(stage.parameters(), stage.buffers())
        )
        self.stage = copy.deepcopy(stage, {id(tensor): tensor for tensor in shared}).eval()
        if averaging:
            self.stage.requires_grad_(False)

    @torch.no_grad()
    def update(self, stage: nn.Module, decay: float) -> None:
        """Move the average by ``1 - decay`` towards the weights of ``stage``; copy its buffers."""
        if not self.averaging:
            return
        pairs = zip(self.stage.parameters(), stage.parameters(), strict=True)
        moving = [(mine, theirs) for mine, theirs in pairs if theirs.requires_grad]
        averaged: list[Tensor] = [mine for mine, _ in moving]
        torch._foreach_lerp_(averaged, [theirs for _, theirs in moving], 1 - decay)
        for mine, theirs in zip(self.stage.buffers(), stage.buffers(), strict=True):
            mine.copy_(theirs)
