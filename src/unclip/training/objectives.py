"""What is minimised. The default is a stage's own loss; others need not touch a stage."""

from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from unclip.randomness import Randomness
from unclip.types import Batch, Losses


@runtime_checkable
class Objective(Protocol):
    """Losses of a batch. The trainer minimises ``loss`` and logs the other entries.

    ``stage`` may be wrapped for several processes: call it, and read its attributes through
    ``unwrapped``.
    """

    def __call__(self, stage: nn.Module, batch: Batch, randomness: Randomness) -> Losses:
        """Losses of ``batch``; everything drawn comes from ``randomness``."""
        ...


def own_loss(stage: nn.Module, batch: Batch, randomness: Randomness) -> Losses:
    """Ask the stage itself."""
    return stage(batch, randomness)


def unwrapped(stage: nn.Module) -> nn.Module:
    """Return the stage inside the wrapper that averages gradients over processes, if any."""
    return stage.module if isinstance(stage, DistributedDataParallel) else stage
