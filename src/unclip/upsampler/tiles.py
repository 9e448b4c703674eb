"""Run a convolutional network over overlapping tiles, for images that do not fit in memory.

Each prediction of a sampler is computed tile by tile and blended before the sampler uses it, so
all tiles share one trajectory and no seam can grow. Knows neither diffusion nor the network.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

Network = Callable[[Tensor, Tensor], Tensor]
"""(inputs [b c h w], t [b]) -> outputs [b k h w]."""


def tiled(network: Network, size: int, overlap: int, multiple: int = 1) -> Network:
    """Wrap ``network`` so that it sees squares of ``size`` pixels at most.

    In the overlap of two neighbours the outer quarter of each, where the border of a tile may
    be felt, is dropped and the middle half is blended by raised cosines. A network that sees
    ``overlap // 4`` pixels far at most gives exactly what it gives on the whole image;
    normalisation over the picture (GroupNorm) uses each tile's statistics instead.

    Args:
        network: from inputs and timesteps to outputs of the same height and width.
        size: side of a tile.
        overlap: of neighbours, at least; below ``size``.
        multiple: tiles start on this grid (the network's total stride), and sides of image
            and tile are multiples of it.
    """
    assert 0 < overlap < size, (overlap, size)
    assert size % multiple == 0, (size, multiple)

    def run(inputs: Float[Tensor, "b c h w"], t: Tensor) -> Float[Tensor, "b k h w"]:
        height, width = inputs.shape[-2:]
        if height <= size and width <= size:
            return network(inputs, t)
        rows = _spans(height, size, overlap, multiple)
        columns = _spans(width, size, overlap, multiple)
        total: Tensor | None = None
        for top, bottom, row_weight in rows:
            for left, right, column_weight in columns:
                output = network(inputs[..., top:bottom, left:right].contiguous(), t)
                if total is None:
                    shape = (*output.shape[:2], height, width)
                    total = torch.zeros(shape, dtype=torch.float32, device=output.device)
                weight = (row_weight[:, None] * column_weight).to(output.device)
                total[..., top:bottom, left:right] += output.float() * weight
        assert total is not None
        return total

    return run


def padded(network: Network, multiple: int) -> Network:
    """Wrap ``network`` so that sides need not be multiples of ``multiple``.

    Images are continued to the right and below, mirrored, and the output is cut back.
    """

    def run(inputs: Float[Tensor, "b c h w"], t: Tensor) -> Float[Tensor, "b k h w"]:
        height, width = inputs.shape[-2:]
        right, below = -width % multiple, -height % multiple
        if not right and not below:
            return network(inputs, t)
        # An image smaller than what is missing cannot be mirrored; its edge is repeated.
        mode = "reflect" if right < width and below < height else "replicate"
        return network(pad(inputs, (0, right, 0, below), mode=mode), t)[..., :height, :width]

    return run


def _spans(
    length: int, size: int, overlap: int, multiple: int
) -> list[tuple[int, int, Float[Tensor, " s"]]]:
    """Intervals that cover ``length``, with weights that add up to 1 at each position."""
    size = min(size, length)
    starts = _starts(length, size, overlap, multiple)
    windows = torch.zeros(len(starts), length, dtype=torch.float64)
    for index, start in enumerate(starts):
        window = torch.ones(size, dtype=torch.float64)
        if index > 0:
            window = window * _ramp(size, overlap)
        if index < len(starts) - 1:
            window = window * _ramp(size, overlap).flip(0)
        windows[index, start : start + size] = window
    weights = (windows / windows.sum(0)).float()
    return [
        (start, start + size, weights[index, start : start + size])
        for index, start in enumerate(starts)
    ]


def _starts(length: int, size: int, overlap: int, multiple: int) -> list[int]:
    """First positions of the fewest tiles that overlap enough, evenly spread over the grid."""
    slack = length - size
    assert slack % multiple == 0, (length, size, multiple)
    stride = max(multiple, (size - overlap) // multiple * multiple)
    count = -(-slack // stride) + 1
    if count == 1:
        return [0]
    return [slack // multiple * i // (count - 1) * multiple for i in range(count)]


def _ramp(size: int, overlap: int) -> Float[Tensor, " s"]:
    """0 over a quarter of the overlap, rising smoothly over its half, then 1."""
    dropped = overlap // 4
    rise = overlap - 2 * dropped
    position = (torch.arange(size, dtype=torch.float64) - dropped + 0.5) / rise
    return torch.sin(position.clamp(0, 1) * torch.pi / 2).square()
