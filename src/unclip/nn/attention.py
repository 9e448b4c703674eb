"""Scaled dot-product attention by the fastest route for where it computes, and in what dtype."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

LARGEST = 2**25
"""Scores, over batch and heads, that are worth 64 MiB to keep for the backward pass."""
CACHED = 2**21
"""Scores that stay in a processor's cache between the two products."""


def attend(
    query: Float[Tensor, "b heads n d"],
    key: Float[Tensor, "b heads k d"],
    value: Float[Tensor, "b heads k d"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "b heads n d"]:
    """softmax(q·kᵀ/√d)·v for every head.

    Args:
        query: what asks.
        key: what is compared with.
        value: what is mixed.
        mask: True where a query may attend to a key; broadcasts to (b, heads, n, k), or to
            fewer keys: those it does not reach may be attended to.
    """
    if not _plain_is_faster(query, key):
        if mask is not None:
            mask = pad(mask, (0, key.shape[-2] - mask.shape[-1]), value=True)
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)
    batch, heads, count, _ = query.shape
    query = (query * query.shape[-1] ** -0.5).contiguous()
    key, value = key.contiguous(), value.contiguous()
    if mask is not None:
        mask = mask.expand(batch, heads, -1, -1)
    cut = _cutter(batch, heads, count * key.shape[-2])
    masks = itertools.repeat(None) if mask is None else cut(mask)
    parts = map(_plain, cut(query), cut(key), cut(value), masks)
    return torch.cat(list(parts)).view_as(query)


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    scores = query @ key.transpose(-1, -2)
    if mask is not None:
        scores[..., : mask.shape[-1]].masked_fill_(~mask, -torch.inf)
    return (scores.softmax(dim=-1) @ value).flatten(0, -3)


def _cutter(batch: int, heads: int, scores: int) -> Callable[[Tensor], list[Tensor]]:
    """Cuts (batch, heads, …) into samples and heads whose scores stay in the cache.

    The order is that of the tensor laid flat. Splits, not slices: their gradients are joined in
    one copy instead of added one by one.
    """
    samples = min(batch, max(1, CACHED // (heads * scores)))
    share = heads if samples > 1 else min(heads, max(1, CACHED // scores))
    return lambda whole: [part for some in whole.split(samples) for part in some.split(share, 1)]


def _plain_is_faster(query: Tensor, key: Tensor) -> bool:
    # Where CPUs multiply bfloat16, two plain products of contiguous matrices take half the time
    # of PyTorch's fused attention, and a third of its backward pass, which works in float32.
    # Only while what has to be kept stays small.
    scores = query.shape[-2] * key.shape[-2]
    if torch.is_grad_enabled():
        scores *= query.shape[:-2].numel()
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and scores <= LARGEST
