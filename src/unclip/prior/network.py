"""The transformer of the diffusion prior (§1.4): text, z_t, t and noised z_i in, clean z_i out.

It does not know how the noise was added, nor where its text features come from.
"""

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from unclip.config import Config
from unclip.errors import OptionError
from unclip.nn.layers import TimeEmbedding, unit_scale
from unclip.nn.transformer import Transformer, TransformerConfig, causal_mask, key_mask
from unclip.nn.unconditional import Unconditional, UnconditionalKind
from unclip.types import TextFeatures

EXTRA = 4
"""Positions after the text: z_t, timestep, noised z_i, final learned embedding."""


class PriorNetworkConfig(Config):
    """Size and conditioning of the prior's network; the defaults are Table 3's prior."""

    embedding: int = 1024
    """Size d of CLIP embeddings; the transformer's width does not depend on it."""
    text_width: int = 1024
    """Width f of CLIP's text states."""
    context: int = 77
    """The most text tokens it can read."""
    transformer: TransformerConfig = TransformerConfig(width=2048, depth=24, heads=32)
    causal: bool = True
    """Whether a position sees only those before it, as in the paper."""
    unconditional: UnconditionalKind = "learned"
    unconditional_tokens: int = 1
    text_scale: float | None = Field(default=None, gt=0)
    """Factor on z_t before its projection; None for §1.2's 0.5375·√d. Karlo's is 1."""
    timestep: bool = True
    """Whether a position tells the timestep; a prior of one pass has none."""

    @property
    def extra(self) -> int:
        """Positions after the text."""
        return EXTRA if self.timestep else EXTRA - 1


class PriorNetwork(nn.Module):
    """One sequence of text tokens · z_t · timestep · noised z_i · final learned embedding.

    The output at the last position, after a LayerNorm and a projection, predicts the clean z_i.
    Positions after the text have their own place in the position table, so padding can be cut
    or added without changing the result.
    """

    def __init__(self, config: PriorNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.transformer.width
        self.text_scale = config.text_scale or unit_scale(config.embedding)
        self.unconditional = Unconditional(
            config.unconditional, config.unconditional_tokens, config.embedding, config.text_width
        )
        self.states_in = nn.Linear(config.text_width, width)
        self.text_in = nn.Linear(config.embedding, width)
        self.time_in = TimeEmbedding(width, width) if config.timestep else None
        self.noised_in = nn.Linear(config.embedding, width)
        self.final = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.context + config.extra, width) * 0.01)
        self.transformer = Transformer(config.transformer)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.embedding)

    def forward(
        self,
        x_t: Float[Tensor, "b d"],
        t: Int[Tensor, " b"] | None,
        text: TextFeatures,
        dropped: Bool[Tensor, " b"],
    ) -> Float[Tensor, "b d"]:
        """Predict the clean image embedding, in the units of ``x_t``, in the weights' dtype.

        Args:
            x_t: noised image embedding, with components of the size of pixels in [-1, 1].
            t: original timestep, 0 … T-1; None where ``config.timestep`` is off.
            text: text embedding, states and mask; the token ids are not read.
            dropped: where True, the text is replaced by the unconditional one. The noised
                embedding never is: guidance compares two denoisers of the same x_t.

        Raises:
            OptionError: the text is longer than the context.
        """
        text = self.unconditional(text, dropped)
        sequence = self._embed(x_t, t, text)
        hidden = self.transformer(sequence, self._mask(text.mask))
        return self.out(self.norm(hidden[:, -1]))

    def _embed(
        self, x_t: Float[Tensor, "b d"], t: Int[Tensor, " b"] | None, text: TextFeatures
    ) -> Float[Tensor, "b length width"]:
        length = text.mask.shape[1]
        if length > self.config.context:
            raise OptionError(
                f"the prior reads at most {self.config.context} text tokens but was given "
                f"{length}; use the text encoder it was trained with, or a longer context"
            )
        dtype = self.out.weight.dtype
        extra = [
            self.text_in((self.text_scale * text.embedding).to(dtype)),
            self.noised_in(x_t.to(dtype)),
            repeat(self.final.to(dtype), "width -> b width", b=len(x_t)),
        ]
        if self.time_in is not None:
            extra.insert(1, self.time_in(t))
        sequence = torch.cat(
            [self.states_in(text.states.to(dtype)), torch.stack(extra, dim=1)], dim=1
        )
        return sequence + torch.cat([self.positions[:length], self.positions[-len(extra) :]])

    def _mask(self, text: Bool[Tensor, "b n"]) -> Bool[Tensor, "b 1 rows columns"]:
        real = nn.functional.pad(text, (0, self.config.extra), value=True)
        length = real.shape[1]
        allowed = key_mask(real)
        if self.config.causal:
            allowed = allowed & causal_mask(length, real.device)
        # A padding token sees itself: a row without any key would be NaN in some kernels.
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        return allowed | itself
