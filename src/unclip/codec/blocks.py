"""The blocks of MoVQ (2209.09002): norms that a code modulates, res-blocks, attention, resizing.

They know nothing of levels. An encoder's blocks are the same with plain norms.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, silu

from unclip.nn.attention import attend

EPSILON = 1e-6
Image = Float[Tensor, "b c h w"]
Code = Float[Tensor, "b k y x"]
Norm = Callable[[int], nn.Module]
"""Builds a norm for a number of channels; a norm is called with an image and a code or None."""


class PlainNorm(nn.GroupNorm):
    """GroupNorm that takes no notice of the code."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__(groups, channels, eps=EPSILON)

    def forward(self, x: Image, code: Code | None = None) -> Image:
        """Normalise."""
        del code
        return super().forward(x)


class SpatialNorm(nn.Module):
    """GroupNorm, scaled and shifted at every pixel by what the code says there."""

    def __init__(self, groups: int, channels: int, code: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=EPSILON)
        self.scale = nn.Conv2d(code, channels, 1)
        self.shift = nn.Conv2d(code, channels, 1)

    def forward(self, x: Image, code: Code | None = None) -> Image:
        """Normalise ``x``; ``code`` may be smaller and is enlarged to the nearest pixel."""
        assert code is not None, "a spatial norm reads the code"
        # Enlarged after the convolution: a 1×1 convolution does not see neighbours.
        scale, shift = (
            interpolate(part(code), x.shape[-2:], mode="nearest")
            for part in (self.scale, self.shift)
        )
        return torch.addcmul(shift, self.norm(x).to(shift.dtype), scale)


class ResBlock(nn.Module):
    """Two normalised convolutions, added to their input."""

    def __init__(self, channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm_1 = norm(channels)
        self.conv_1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm_2 = norm(out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        same = channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Image, code: Code | None) -> Float[Tensor, "b out_channels h w"]:
        """Apply the block."""
        h = self.conv_1(silu(self.norm_1(x, code)))
        h = self.conv_2(silu(self.norm_2(h, code)))
        return self.skip(x) + h


class PixelAttention(nn.Module):
    """Every pixel attends to every other, with one head as wide as the image has channels."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Image, code: Code | None) -> Image:
        """Attend, and add the result to ``x``."""
        pixels = rearrange(self.norm(x, code), "b c h w -> b (h w) c")
        query, key, value = rearrange(self.qkv(pixels), "b n (qkv c) -> qkv b 1 n c", qkv=3)
        y = self.out(rearrange(attend(query, key, value), "b 1 n c -> b n c"))
        return x + rearrange(y, "b (h w) c -> b c h w", h=x.shape[-2])


class Resize(nn.Module):
    """Halve by a strided convolution, or double to the nearest pixel and convolve."""

    def __init__(self, channels: int, direction: Literal["down", "up"]) -> None:
        super().__init__()
        self.direction = direction
        down = direction == "down"
        self.conv = nn.Conv2d(channels, channels, 3, stride=2 if down else 1, padding=int(not down))

    def forward(self, x: Image) -> Float[Tensor, "b c h2 w2"]:
        """Resize."""
        if self.direction == "down":
            # Padded at the right and below only, as in the VQGAN it descends from.
            return self.conv(pad(x, (0, 1, 0, 1)))
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Res-blocks of one width, each followed by attention where the level has it, and a resize."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        depth: int,
        norm: Norm,
        *,
        attends: bool,
        resize: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        widths = [channels, *[out_channels] * depth]
        self.residuals = nn.ModuleList(
            ResBlock(here, there, norm) for here, there in pairwise(widths)
        )
        count = depth if attends else 0
        self.attentions = nn.ModuleList(PixelAttention(out_channels, norm) for _ in range(count))
        self.resize = None if resize is None else Resize(out_channels, resize)

    def forward(self, x: Image, code: Code | None) -> Float[Tensor, "b out_channels h2 w2"]:
        """Apply all parts that are present, in that order."""
        for index, residual in enumerate(self.residuals):
            x = residual(x, code)
            if self.attentions:
                x = self.attentions[index](x, code)
        return x if self.resize is None else self.resize(x)


class Middle(nn.Module):
    """A res-block, attention, a res-block."""

    def __init__(self, channels: int, norm: Norm) -> None:
        super().__init__()
        self.before = ResBlock(channels, channels, norm)
        self.attention = PixelAttention(channels, norm)
        self.after = ResBlock(channels, channels, norm)

    def forward(self, x: Image, code: Code | None) -> Image:
        """Apply the three."""
        return self.after(self.attention(self.before(x, code), code), code)
