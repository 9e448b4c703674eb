"""A decoder whose layout begins as what CLIP's head for thumbnails draws of z_i.

The head has learned to read pictures from z_i while CLIP was trained; the decoder need not learn
that again.
"""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from unclip.clip.thumbnail import Thumbnail
from unclip.decoder.layout import Layout

QUICK = 1.702
"""GELU(x) is about silu(1.702 x) / 1.702."""


@torch.no_grad()
def begin_with_thumbnails(
    layout: Layout, scale: float, head: Thumbnail, z: Float[Tensor, "n d"]
) -> None:
    """Set the two layers of ``layout`` so that its cells hold the thumbnail's pixels.

    Of the pixels in a cell it keeps the principal components, as many as it has channels.

    Args:
        layout: of a decoder; as wide inside as the head.
        scale: what the decoder multiplies z_i by.
        head: of the CLIP that embeds.
        z: some thousand unit embeddings, whose thumbnails are measured.
    """
    first, last = head.layers[0], head.layers[2]
    layout.hidden.weight.copy_(QUICK * head.scale / scale * first.weight)
    layout.hidden.bias.copy_(QUICK * first.bias)
    cut = {"h": layout.side, "w": layout.side}
    cells = rearrange(head(z), "n c (h i) (w j) -> (n h w) (c i j)", **cut)
    channels = layout.paint.out_features // layout.side**2
    mean = cells.mean(dim=0)
    _, spread, basis = torch.linalg.svd(cells - mean, full_matrices=False)
    basis = basis[:channels] * len(cells) ** 0.5 / spread[0]
    whole = {"c": 3, "h": layout.side, "w": layout.side, "i": head.side // layout.side}
    weight = rearrange(last.weight, "(c h i w j) k -> h w (c i j) k", **whole)
    bias = rearrange(last.bias, "(c h i w j) -> h w (c i j)", **whole) - mean
    painted = einsum(basis, weight, "p m, h w m k -> p h w k") / QUICK
    layout.paint.weight.copy_(rearrange(painted, "p h w k -> (p h w) k"))
    layout.paint.bias.copy_(
        rearrange(einsum(basis, bias, "p m, h w m -> p h w"), "p h w -> (p h w)")
    )
