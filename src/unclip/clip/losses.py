"""CLIP's contrastive losses, over the batches of all processes together (§5.2, §5.4).

Each process scores its own rows against everybody's columns. The mean of the processes' losses
is the loss of the joined batch, and averaging their gradients, as DDP does, gives its gradient.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unclip.types import Losses

_LOCAL = ContextVar("gradients stay in their process", default=False)


@contextmanager
def local_gradients() -> Iterator[None]:
    """Losses computed inside have gradients of this process's loss and rows alone.

    The rows of others are still what they are contrasted with, but as constants.
    """
    before = _LOCAL.set(True)
    try:
        yield
    finally:
        _LOCAL.reset(before)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.local = _LOCAL.get()
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every process's loss depends on every row, so their gradients add up. A reduce-scatter
        # would send less, but not every backend has one.
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        if not ctx.local:
            dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def gather(local: Float[Tensor, "b d"]) -> Float[Tensor, "all d"]:
    """Join the rows of all processes, in order of rank; gradients flow back to each.

    Every process must bring the same number of rows.
    """
    return _Gather.apply(local) if _several() else local


def softmax_loss(
    image: Float[Tensor, "b d"], text: Float[Tensor, "b d"], scale: Float[Tensor, ""]
) -> Losses:
    """Symmetric cross-entropy over scaled cosines (§5.2).

    Args:
        image: unit-norm image embeddings of this process.
        text: unit-norm text embeddings of this process, row for row.
        scale: exp of the learned logit scale, at most 100.

    Returns:
        ``loss`` and ``accuracy``, the share of images whose nearest caption is their own.
    """
    with _full_precision(image):
        image, text = at_least_float32(image), at_least_float32(text)
        targets = torch.arange(len(image), device=image.device) + _first_row(image)
        images, texts = gather(torch.cat([image, text], dim=1)).chunk(2, dim=1)
        per_image = scale * image @ texts.T
        per_text = scale * text @ images.T
        loss = functional.cross_entropy(per_image, targets)
        loss = (loss + functional.cross_entropy(per_text, targets)) / 2
    return {"loss": loss, "accuracy": _accuracy(per_image, targets)}


def sigmoid_loss(
    image: Float[Tensor, "b d"],
    text: Float[Tensor, "b d"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Losses:
    """−mean_i Σ_j log σ(±(scale·cos + bias)), plus for a pair, minus otherwise (SigLIP, §5.4).

    Args:
        image: unit-norm image embeddings of this process.
        text: unit-norm text embeddings of this process, row for row.
        scale: exp of the learned logit scale, at most 100.
        bias: the learned bias; −ln of the joined batch size is a neutral start.

    Returns:
        ``loss`` and ``accuracy``, the share of images whose nearest caption is their own.
    """
    with _full_precision(image):
        image, text = at_least_float32(image), at_least_float32(text)
        targets = torch.arange(len(image), device=image.device) + _first_row(image)
        logits = scale * image @ gather(text).T + bias
        signs = 2 * functional.one_hot(targets, logits.shape[1]).to(logits.dtype) - 1
        loss = -functional.logsigmoid(signs * logits).sum(dim=1).mean()
    return {"loss": loss, "accuracy": _accuracy(logits, targets)}


def at_least_float32(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Lift half precisions to float32: norms and losses need it."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    return (logits.detach().argmax(dim=1) == targets).float().mean()


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _first_row(local: Tensor) -> int:
    return dist.get_rank() * len(local) if _several() else 0


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)
