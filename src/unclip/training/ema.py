"""The moving average of the weights; its half-life is counted in images, not in steps (§1.10)."""

import copy

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
    """A copy of a stage that follows its weights; buffers are copied as they are."""

    def __init__(self, stage: nn.Module) -> None:
        self.stage = copy.deepcopy(stage).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, stage: nn.Module, decay: float) -> None:
        """Move the average by ``1 - decay`` towards the weights of ``stage``."""
        averaged: list[Tensor] = list(self.stage.parameters())
        torch._foreach_lerp_(averaged, list(stage.parameters()), 1 - decay)
        for mine, theirs in zip(self.stage.buffers(), stage.buffers(), strict=True):
            mine.copy_(theirs)
