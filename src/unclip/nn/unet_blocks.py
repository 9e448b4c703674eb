"""The blocks of the ADM U-Net: res-block, joint attention, resampling, patches.

They know nothing of levels or skips. Written for channels-last memory, where turning an image
into a sequence of pixels is free.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    interpolate,
    pad,
    pixel_shuffle,
    silu,
)

from unclip.nn.attention import attend
from unclip.nn.normalisation import GroupNorm

Image = Float[Tensor, "b c h w"]
Resample = Literal["down", "up"]


def group_norm(channels: int, groups: int) -> GroupNorm:
    """GroupNorm with ``groups`` groups, or the most that divide the channels evenly."""
    return GroupNorm(math.gcd(groups, channels), channels, eps=1e-5)


def zeroed(layer: nn.Conv2d | nn.Linear) -> nn.Module:
    """Start a residual branch at zero, so that a new block is the identity (ADM)."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def resample(x: Image, direction: Resample | None) -> Float[Tensor, "b c h2 w2"]:
    """Halve (mean of 2×2) or double (nearest) an image without weights."""
    if direction == "down":
        return avg_pool2d(x, 2)
    if direction == "up":
        return interpolate(x, scale_factor=2.0, mode="nearest")
    return x


class ResBlock(nn.Module):
    """Two convolutions around which the embedding enters, added to their input.

    Args:
        scale_shift: the embedding scales and shifts the second norm's output (FiLM, AdaGN);
            otherwise it is added before that norm.
        direction: halve or double the image between norm and first convolution (BigGAN).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        embedding: int,
        *,
        groups: int,
        dropout: float,
        scale_shift: bool,
        direction: Resample | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift = scale_shift
        self.direction: Resample | None = direction
        self.norm_1 = group_norm(channels, groups)
        self.conv_1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.embedding = nn.Linear(embedding, 2 * out_channels if scale_shift else out_channels)
        self.norm_2 = group_norm(out_channels, groups)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        same = channels == out_channels
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(
        self, x: Image, embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b out_channels h2 w2"]:
        """Apply the block; ``embedding`` has passed its SiLU already, once for all blocks."""
        h = resample(silu(self.norm_1(x)), self.direction)
        h = self.conv_1(h)
        film = rearrange(self.embedding(embedding), "b c -> b c 1 1")
        if self.scale_shift:
            scale, shift = film.chunk(2, dim=1)
            # One pass over the image instead of two.
            h = torch.addcmul(shift, self.norm_2(h).to(shift.dtype), 1 + scale)
        else:
            h = self.norm_2(h + film)
        h = self.conv_2(self.dropout(silu(h)))
        return self.skip(resample(x, self.direction)) + h


class Resize(nn.Module):
    """Halve by a strided convolution, or double and convolve: ADM without BigGAN res-blocks."""

    def __init__(self, channels: int, direction: Resample) -> None:
        super().__init__()
        self.direction = direction
        stride = 2 if direction == "down" else 1
        self.conv = nn.Conv2d(channels, channels, 3, stride=stride, padding=1)

    def forward(
        self, x: Image, embedding: Float[Tensor, "b e"]
    ) -> Float[Tensor, "b out_channels h2 w2"]:
        """Resize; the embedding is not used, it makes this interchangeable with `ResBlock`."""
        del embedding
        return self.conv(resample(x, "up") if self.direction == "up" else x)


class JointAttention(nn.Module):
    """Pixels attend to context tokens and to each other in one softmax (GLIDE, §1.5).

    Keys and values are [context ; pixels]; each block projects the context for itself.
    """

    def __init__(
        self, channels: int, head_channels: int, context_width: int | None, *, groups: int
    ) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = group_norm(channels, groups)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.context = None if context_width is None else nn.Linear(context_width, 2 * channels)
        self.out = zeroed(nn.Linear(channels, channels))

    def project(self, context: Float[Tensor, "b k f"]) -> Float[Tensor, "b k kv"]:
        """Keys and values of context tokens, side by side."""
        assert self.context is not None, "this block was built without a context"
        return self.context(context)

    def forward(
        self,
        x: Image,
        context: Float[Tensor, "b k kv"] | None = None,
        mask: Bool[Tensor, "b k"] | None = None,
    ) -> Image:
        """Attend, and add the result to ``x``.

        Args:
            x: pixels.
            context: keys and values of the context, from `project`.
            mask: True at context tokens that may be attended to; all of them if missing.
        """
        height = x.shape[-2]
        pixels = rearrange(self.norm(x), "b c h w -> b (h w) c")
        query, key_value = self.qkv(pixels).split([x.shape[1], 2 * x.shape[1]], dim=-1)
        allowed = None
        if context is not None:
            key_value = torch.cat([context.to(key_value.dtype), key_value], dim=1)
            if mask is not None:
                allowed = rearrange(mask, "b k -> b 1 1 k")
        query = rearrange(query, "b n (heads d) -> b heads n d", heads=self.heads)
        key, value = rearrange(
            key_value, "b n (kv heads d) -> kv b heads n d", kv=2, heads=self.heads
        )
        y = attend(query, key, value, allowed)
        y = self.out(rearrange(y, "b heads n d -> b n (heads d)"))
        return x + rearrange(y, "b (h w) c -> b c h w", h=height)


class PatchExit(nn.Module):
    """From patch features back to pixels, without seams.

    Patches are laid out as pixels, then a full-resolution convolution reads them together with
    the U-Net's input, so that detail finer than a patch need not pass through it. How much of the
    input it reads depends on the noise level and on the place: near clean data the input shows the
    finest edges, while flat parts are known better without its noise.

    Args:
        bandwidths: of `deviations` that it reads besides, likewise by level and place.
    """

    def __init__(
        self,
        channels: int,
        in_channels: int,
        out_channels: int,
        embedding: int,
        patch: int,
        bandwidths: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.patch = patch
        self.bandwidths = tuple(bandwidths)
        inner = max(out_channels, channels // patch**2)
        self.to_pixels = nn.Conv2d(channels, inner * patch**2, 3, padding=1)
        self.level_gain = zeroed(nn.Linear(embedding, in_channels))
        self.place_gain = zeroed(nn.Conv2d(channels, in_channels * patch**2, 3, padding=1))
        self.conv = zeroed(nn.Conv2d(inner + in_channels, out_channels, 3, padding=1))
        if self.bandwidths:
            fine = in_channels * len(self.bandwidths)
            self.fine_level_gain = zeroed(nn.Linear(embedding, fine))
            self.fine_place_gain = zeroed(nn.Conv2d(channels, fine * patch**2, 3, padding=1))
            self.fine_conv = zeroed(nn.Conv2d(fine, out_channels, 3, padding=1, bias=False))

    def forward(
        self,
        x: Image,
        pixels: Float[Tensor, "b c0 h0 w0"],
        embedding: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b out_channels h0 w0"]:
        """Map features of patches, beside the network's input ``pixels``, to its output."""
        gain = self._gain(self.level_gain(embedding), self.place_gain(x))
        h = pixel_shuffle(self.to_pixels(x), self.patch)
        out = self.conv(torch.cat([h, gain * pixels.to(h.dtype)], dim=1))
        if not self.bandwidths:
            return out
        fine = deviations(pixels, self.bandwidths).to(h.dtype)
        gain = self._gain(self.fine_level_gain(embedding), self.fine_place_gain(x))
        return out + self.fine_conv(gain * fine)

    def _gain(
        self, level: Float[Tensor, "b c0"], place: Float[Tensor, "b c1 h w"]
    ) -> Float[Tensor, "b c0 h0 w0"]:
        return rearrange(1 + level, "b c -> b c 1 1") + pixel_shuffle(place, self.patch)


def deviations(x: Image, bandwidths: Sequence[float]) -> Float[Tensor, "b c2 h w"]:
    """How far each pixel is from its neighbours of the same colour, in units of each bandwidth.

    What a bilateral filter (Tomasi and Manduchi, 1998) of 3 × 3 pixels would take away: in flat
    parts nearly all of the noise, however faint beside the picture, and nothing of an edge that is
    much higher than the bandwidth.

    Args:
        bandwidths: differences, root mean square over channels, at which a neighbour weighs
            exp(−1/2); c2 is c for each of them.
    """
    height, width = x.shape[-2:]
    around = pad(x.float(), (1, 1, 1, 1), mode="replicate")
    weighted = [torch.zeros_like(x, dtype=torch.float32) for _ in bandwidths]
    weights = [torch.ones_like(total[:, :1]) for total in weighted]
    # A pixel and its neighbour differ as the neighbour and the pixel do: four directions of eight.
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        left, right = max(0, -across), max(0, across)
        one = around[..., : height + 2 - down, left : width + 2 - right]
        other = around[..., down:, right : width + 2 - left]
        apart = one - other
        square = apart.square().mean(dim=1, keepdim=True)
        ahead = (..., slice(1, 1 + height), slice(1 - left, 1 - left + width))
        behind = (..., slice(1 - down, 1 - down + height), slice(1 - right, 1 - right + width))
        for index, bandwidth in enumerate(bandwidths):
            weight = torch.exp(square / (-2 * bandwidth**2))
            pull = weight * apart
            weighted[index] += pull[ahead] - pull[behind]
            weights[index] += weight[ahead] + weight[behind]
    return torch.cat(
        [
            total / (weight * bandwidth)
            for total, weight, bandwidth in zip(weighted, weights, bandwidths, strict=True)
        ],
        dim=1,
    )
