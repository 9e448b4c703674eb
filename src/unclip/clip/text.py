"""CLIP's causal text transformer (CLIP, arXiv 2103.00020, §2.4). It knows token ids, no strings."""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.nn.transformer import Activation, Transformer, TransformerConfig, causal_mask, key_mask


class TextConfig(Config):
    """Size of the text tower."""

    context: int = 77
    """Tokens it reads, [SOT] and [EOT] included."""
    width: int
    depth: int
    heads: int
    vocabulary: int = 49_408
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"

    @model_validator(mode="after")
    def _check(self) -> "TextConfig":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.context < 3:
            raise ValueError(f"context {self.context} leaves no room for words")
        return self


class TextTower(nn.Module):
    """Token and position embeddings -> causal blocks -> LayerNorm; the state at [EOT] -> linear.

    Args:
        config: its size.
        embedding: dimension d of the CLIP embedding.
    """

    def __init__(self, config: TextConfig, embedding: int) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.transformer = Transformer(
            TransformerConfig(
                width=width,
                depth=config.depth,
                heads=config.heads,
                mlp_ratio=config.mlp_ratio,
                activation=config.activation,
            )
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, embedding, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def forward(
        self, ids: Int[Tensor, "b n"], mask: Bool[Tensor, "b n"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n f"]]:
        """Embed captions of at most ``context`` tokens.

        Args:
            ids: token ids, padded on the right.
            mask: True at real tokens, of which the last is [EOT].

        Returns:
            The text embeddings, not normalised to unit length, and the hidden states after the
            final LayerNorm.
        """
        x = self.tokens(ids) + self.positions[: ids.shape[1]]
        allowed = causal_mask(ids.shape[1], ids.device) & key_mask(mask)
        states = self.norm(self.transformer(x, allowed))
        # By the mask rather than by the largest id: in a vocabulary of one's own [EOT] may have
        # any id, and in a padded batch each caption ends elsewhere.
        end = mask.sum(dim=1) - 1
        pooled = states[torch.arange(len(ids), device=ids.device), end]
        return self.projection(pooled), states
