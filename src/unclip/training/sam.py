"""Sharpness-aware minimisation: gradients are taken uphill of the weights they move (§1.1).

P. Foret et al., arXiv 2010.01412. Each process and each accumulated part climbs by its own
gradient, which is SAM with m-sharpness. It knows no stage and no optimiser.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unclip.clip.losses import local_gradients


@contextmanager
def climbed(
    parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], radius: float
) -> Iterator[None]:
    """Move weights by ``radius`` along the gradient of ``loss``, and put them back bit for bit.

    Gradients that are accumulated already stay as they are, and none is averaged over processes.

    Args:
        parameters: those that ask for no gradient stay where they are.
        loss: computes the loss, not through a wrapper that averages gradients.
        radius: ρ, the Euclidean length of the step over all parameters together; 0 is no step,
            and costs nothing.
    """
    if radius == 0:
        yield
        return
    moved: list[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
    with local_gradients():
        value = loss()
    gradients = torch.autograd.grad(value, moved, materialize_grads=True)
    length = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    before = [parameter.detach().clone() for parameter in moved]
    with torch.no_grad():
        # At a stationary point there is no direction to climb in.
        steps = torch._foreach_mul(gradients, radius / length.clamp(min=1e-12))
        torch._foreach_add_(moved, list(steps))
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(moved, before)
