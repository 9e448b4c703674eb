"""CLIP's ModifiedResNet (CLIP, arXiv 2103.00020, §2.4). It knows no captions, no loss.

A ResNet with a three-convolution stem, average pools before strides (anti-aliasing) and
attention pooling.
"""

from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.randomness import Randomness


class ModifiedResNetConfig(Config):
    """Size of a ModifiedResNet; its last stage has ``32 * width`` channels."""

    kind: Literal["resnet"] = "resnet"
    size: int
    """Side of the square input in pixels, a multiple of 32."""
    layers: tuple[int, int, int, int]
    """Bottlenecks in each stage."""
    width: int
    heads: int
    """Heads of the attention pooling."""

    @model_validator(mode="after")
    def _check(self) -> "ModifiedResNetConfig":
        if self.size % 32:
            raise ValueError(f"size {self.size} is not a multiple of 32")
        if 32 * self.width % self.heads:
            raise ValueError(f"32 * width {self.width} is not a multiple of heads {self.heads}")
        return self


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions; a stride is an average pool before the last one."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv_1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm_1 = nn.BatchNorm2d(width)
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(width)
        self.conv_3 = nn.Conv2d(width, out, 1, bias=False)
        self.norm_3 = nn.BatchNorm2d(out)
        # The residual branch starts as zero, so that a deep tower starts as a shallow one.
        nn.init.zeros_(self.norm_3.weight)
        self.pool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.shortcut = nn.Sequential()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        """Add the residual branch to the shortcut."""
        y = self.norm_1(self.conv_1(x)).relu()
        y = self.norm_2(self.conv_2(y)).relu()
        y = self.norm_3(self.conv_3(self.pool(y)))
        return (y + self.shortcut(x)).relu()


class AttentionPool(nn.Module):
    """One attention layer whose only query is the mean of the feature map."""

    def __init__(self, side: int, width: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(torch.randn(side**2 + 1, width) * width**-0.5)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.projection = nn.Linear(width, embedding)
        for layer in (self.query, self.key, self.value, self.projection):
            nn.init.normal_(layer.weight, std=width**-0.5)
            nn.init.zeros_(layer.bias)

    def pool(self, x: Float[Tensor, "b width h w"]) -> Float[Tensor, "b width"]:
        """Pool a feature map; the heads' results side by side, before the projection."""
        x = rearrange(x, "b c h w -> b (h w) c")
        x = torch.cat([x.mean(dim=1, keepdim=True), x], dim=1) + self.positions
        q, k, v = (
            rearrange(part, "b n (h w) -> b h n w", h=self.heads)
            for part in (self.query(x[:, :1]), self.key(x), self.value(x))
        )
        pooled = nn.functional.scaled_dot_product_attention(q, k, v)
        return rearrange(pooled, "b h 1 w -> b (h w)")


class ModifiedResNet(nn.Module):
    """Stem (stride 4), four stages (strides 1, 2, 2, 2), attention pooling.

    Args:
        config: its size.
        embedding: dimension d of the CLIP embedding.
    """

    def __init__(self, config: ModifiedResNetConfig, embedding: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.features_width = 32 * width
        self.stem = nn.Sequential(
            *_convolution(3, width // 2, stride=2),
            *_convolution(width // 2, width // 2),
            *_convolution(width // 2, width),
            nn.AvgPool2d(2),
        )
        stages, channels = [], width
        for level, depth in enumerate(config.layers):
            blocks = []
            for i in range(depth):
                stride = 2 if level > 0 and i == 0 else 1
                blocks.append(Bottleneck(channels, width * 2**level, stride))
                channels = width * 2**level * Bottleneck.expansion
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.pool = AttentionPool(config.size // 32, channels, config.heads, embedding)

    def features(
        self, pixels: Float[Tensor, "b 3 h w"], randomness: Randomness | None = None
    ) -> Float[Tensor, "b features"]:
        """Pooled features before the projection: what a linear probe reads (§5.3).

        ``randomness`` is unused; both towers are called alike.
        """
        x = self.stem(pixels)
        for stage in self.stages:
            x = stage(x)
        return self.pool.pool(x)

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], randomness: Randomness | None = None
    ) -> Float[Tensor, "b d"]:
        """Embed standardised pixels of the configured size; not normalised to unit length."""
        return self.pool.projection(self.features(pixels, randomness))


def _convolution(channels: int, out: int, stride: int = 1) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out), nn.ReLU()
