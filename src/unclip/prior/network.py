"""The transformer of the diffusion prior (§1.4): text, z_t, t and noised z_i in, clean z_i out.

It does not know how the noise was added, nor where its text features come from.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from unclip.config import Config
from unclip.errors import OptionError
from unclip.nn.layers import TimeEmbedding, unit_scale
from unclip.nn.transformer import (
    Kept,
    Memory,
    Transformer,
    TransformerConfig,
    causal_mask,
    key_mask,
)
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


@dataclass(frozen=True)
class Reading:
    """A text as the layers of a causal network have read it."""

    layers: list[Memory]
    """Keys and values of the text, layer by layer."""
    real: Bool[Tensor, "b n"]
    """True where a position is not padding; the last is the text embedding's."""


class PriorNetwork(nn.Module):
    """One sequence of text tokens · z_t · timestep · noised z_i · final learned embedding.

    The output at the last position, after a LayerNorm and a projection, predicts the clean z_i.
    In a causal network the text and z_t do not depend on what comes after them, so they are read
    once (`read`) for any number of noised embeddings (`after`).

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
        if self.config.causal:
            return self.after(self.read(text, dropped), x_t, t)
        text = self.unconditional(text, dropped)
        sequence = torch.cat([self._text(text), self._noised(x_t, t)], dim=1)
        real = pad(text.mask, (0, self.config.extra), value=True)
        return self._predicted(self.transformer(sequence, key_mask(real)))

    def read(self, text: TextFeatures, dropped: Bool[Tensor, " b"]) -> Reading:
        """Read the text, by which no noise passes: once for all steps of a sampling.

        The arguments and the error are those of `forward`; the network has to be causal.
        """
        assert self.config.causal, "a text that sees what comes after it changes with the noise"
        text = self.unconditional(text, dropped)
        sequence = self._text(text)
        real = pad(text.mask, (0, 1), value=True)
        length = real.shape[1]
        # A padding token sees itself: a row without any key would be NaN in some kernels.
        itself = torch.eye(length, dtype=torch.bool, device=real.device)
        mask = key_mask(real) & causal_mask(length, real.device) | itself
        layers = [Kept() for _ in self.transformer.blocks]
        self.transformer(sequence, mask, layers)
        return Reading([Memory(layer.keys, layer.values) for layer in layers], real)

    def after(
        self, reading: Reading, x_t: Float[Tensor, "kb d"], t: Int[Tensor, " kb"] | None
    ) -> Float[Tensor, "kb d"]:
        """`forward` of a text that is read already.

        Args:
            reading: of b captions.
            x_t: one or more noised embeddings for each of them: all captions' first, then all
                captions' second, and so on. They do not see each other.
            t: their timesteps.
        """
        captions = len(reading.real)
        draws = len(x_t) // captions
        noised = rearrange(self._noised(x_t, t), "(k b) n w -> b (k n) w", b=captions)
        hidden = self.transformer(noised, self._tails(reading, draws), reading.layers)
        return self._predicted(rearrange(hidden, "b (k n) w -> (k b) n w", k=draws))

    def _text(self, text: TextFeatures) -> Float[Tensor, "b length width"]:
        """What comes before all noise: token states and the text embedding."""
        length = text.mask.shape[1]
        if length > self.config.context:
            raise OptionError(
                f"the prior reads at most {self.config.context} text tokens but was given "
                f"{length}; use the text encoder it was trained with, or a longer context"
            )
        dtype = self.out.weight.dtype
        embedding = self.text_in((self.text_scale * text.embedding).to(dtype))
        states = self.states_in(text.states.to(dtype))
        sequence = torch.cat([states, rearrange(embedding, "b w -> b 1 w")], dim=1)
        place = -self.config.extra
        return sequence + torch.cat([self.positions[:length], self.positions[place : place + 1]])

    def _noised(
        self, x_t: Float[Tensor, "b d"], t: Int[Tensor, " b"] | None
    ) -> Float[Tensor, "b n width"]:
        """What comes after the text: timestep, noised embedding, and the place of the answer."""
        tokens = [
            self.noised_in(x_t.to(self.out.weight.dtype)),
            repeat(self.final.to(self.out.weight.dtype), "width -> b width", b=len(x_t)),
        ]
        if self.time_in is not None:
            tokens.insert(0, self.time_in(t))
        return torch.stack(tokens, dim=1) + self.positions[-len(tokens) :]

    def _tails(self, reading: Reading, draws: int) -> Bool[Tensor, "b 1 rows columns"]:
        """Each draw sees the real text, and of the noised tokens its own up to here."""
        real, own = reading.real, causal_mask(self.config.extra - 1, reading.real.device)
        rows = draws * len(own)
        past = torch.block_diag(*[own] * draws).bool()
        return torch.cat(
            [
                repeat(real, "b n -> b 1 rows n", rows=rows),
                repeat(past, "rows columns -> b 1 rows columns", b=len(real)),
            ],
            dim=-1,
        )

    def _predicted(self, hidden: Float[Tensor, "b n width"]) -> Float[Tensor, "b d"]:
        return self.out(self.norm(hidden[:, -1]))
