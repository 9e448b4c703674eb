"""CLIP's vision transformer (CLIP, arXiv 2103.00020, §2.4). It knows no captions, no loss."""

from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.nn.transformer import Activation, Transformer, TransformerConfig
from unclip.randomness import Randomness


class ViTConfig(Config):
    """Size of a vision transformer."""

    kind: Literal["vit"] = "vit"
    size: int
    """Side of the square input in pixels."""
    patch: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    keep: float = 1.0
    """Share of patches a training step sees, drawn anew for each image (FLIP, 2212.00794)."""

    @model_validator(mode="after")
    def _check(self) -> "ViTConfig":
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not a multiple of patch {self.patch}")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep {self.keep} is not in (0, 1]")
        return self


class PatchEmbedding(nn.Module):
    """A bias-free convolution of stride ``patch``, computed as one matrix product."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        self.weight = nn.Parameter(torch.randn(width, 3, patch, patch) * (3 * patch**2) ** -0.5)

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patches width"]:
        """Embed every patch, row by row."""
        rows = rearrange(pixels, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)
        return nn.functional.linear(rows, self.weight.flatten(1))


class ViT(nn.Module):
    """Patches and a class token -> LayerNorm -> blocks -> LayerNorm of the class token -> linear.

    Args:
        config: its size.
        embedding: dimension d of the CLIP embedding.
    """

    def __init__(self, config: ViTConfig, embedding: int) -> None:
        super().__init__()
        self.config = config
        width, scale = config.width, config.width**-0.5
        self.features_width = width
        self.patches = PatchEmbedding(config.patch, width)
        self.class_token = nn.Parameter(scale * torch.randn(width))
        count = (config.size // config.patch) ** 2
        self.positions = nn.Parameter(scale * torch.randn(1 + count, width))
        self.norm_in = nn.LayerNorm(width)
        self.transformer = Transformer(
            TransformerConfig(
                width=width,
                depth=config.depth,
                heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                activation=config.activation,
            )
        )
        self.norm_out = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embedding, bias=False)
        nn.init.normal_(self.projection.weight, std=scale)

    def features(
        self, pixels: Float[Tensor, "b 3 h w"], randomness: Randomness | None = None
    ) -> Float[Tensor, "b features"]:
        """Normalised class token before the projection: what a linear probe reads (§5.3).

        ``randomness`` chooses the patches kept while training with ``keep`` below 1.
        """
        x = self.patches(pixels) + self.positions[1:]
        if self.training and self.config.keep < 1 and randomness is not None:
            x = self._keep_some(x, randomness)
        first = repeat(self.class_token + self.positions[0], "w -> b 1 w", b=len(x))
        x = self.transformer(self.norm_in(torch.cat([first.to(x.dtype), x], dim=1)))
        return self.norm_out(x[:, 0])

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"], randomness: Randomness | None = None
    ) -> Float[Tensor, "b d"]:
        """Embed standardised pixels of the configured size; not normalised to unit length."""
        return self.projection(self.features(pixels, randomness))

    def _keep_some(
        self, x: Float[Tensor, "b patches width"], randomness: Randomness
    ) -> Float[Tensor, "b kept width"]:
        count = x.shape[1]
        kept = max(1, round(count * self.config.keep))
        order = randomness.uniform(count).argsort(dim=1)[:, :kept].to(x.device)
        return x.gather(1, repeat(order, "b k -> b k w", w=x.shape[2]))
