"""Scaled dot-product attention by the fastest exact route for where and what it computes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


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
        mask: True where a query may attend to a key; broadcasts to (b, heads, n, k).
    """
    if not _plain_is_faster(query):
        return scaled_dot_product_attention(query, key, value, attn_mask=mask)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(dim=-1).to(value.dtype) @ value


def _plain_is_faster(query: Tensor) -> bool:
    # The backward pass of PyTorch's fused attention on CPUs works in float32: two plain matrix
    # products in bfloat16 take a quarter to two thirds of its time at our sizes.
    training = query.requires_grad and torch.is_grad_enabled()
    return training and query.device.type == "cpu" and query.dtype == torch.bfloat16
