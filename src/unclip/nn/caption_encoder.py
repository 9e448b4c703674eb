"""GLIDE's caption encoder (§1.5), trained with what it conditions: it reads token ids alone."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from unclip.config import Config
from unclip.errors import OptionError
from unclip.nn.transformer import Transformer, TransformerConfig


class CaptionEncoderConfig(Config):
    """Captions through a transformer of one's own; the sizes are the paper's."""

    kind: Literal["caption_encoder"] = "caption_encoder"
    vocabulary: int = 49_408
    context: int = 256
    """Tokens it reads; shorter captions are padded to this."""
    transformer: TransformerConfig = TransformerConfig(width=2048, depth=24, heads=32)


class CaptionEncoder(nn.Module):
    """Token and position embeddings -> blocks without a causal mask -> LayerNorm.

    Padding is not masked out: at every position past the caption's end stands that position's
    learned padding embedding, so a caption always gives ``context`` states. The empty caption is
    padding alone.
    """

    def __init__(self, config: CaptionEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.padding = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.transformer = Transformer(config.transformer)
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(
        self, ids: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b context width"]:
        """States of every position; ``mask`` is True at real tokens.

        Raises:
            OptionError: more than ``context`` tokens.
        """
        missing = self.config.context - ids.shape[1]
        if missing < 0:
            raise OptionError(
                f"the caption encoder reads {self.config.context} tokens but was given "
                f"{ids.shape[1]}; tokenise captions with its context"
            )
        ids, mask = pad(ids, (0, missing)), pad(mask, (0, missing))
        x = torch.where(mask[..., None], self.tokens(ids) + self.positions, self.padding)
        return self.norm(self.transformer(x))
