"""The transformer of the autoregressive prior (§1.3): caption, z_t and tokens in, next token out.

It does not know what its tokens mean, nor how they are drawn.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from unclip.config import Config
from unclip.nn.caption_encoder import CaptionEncoder, CaptionEncoderConfig
from unclip.nn.layers import unit_scale
from unclip.nn.transformer import (
    Cache,
    Memory,
    Transformer,
    TransformerConfig,
    causal_mask,
    key_mask,
)
from unclip.nn.unconditional import Unconditional
from unclip.types import TextFeatures

PREFIX = 2
"""Positions before the tokens: the pooled caption, z_t."""


class FrozenTextConfig(Config):
    """Captions as CLIP's text tower encodes them; it is frozen and costs no parameters."""

    kind: Literal["clip_states"] = "clip_states"
    width: int
    """Width f of CLIP's text states."""


class AutoregressiveNetworkConfig(Config):
    """Size and conditioning; the defaults are Table 3's autoregressive prior."""

    embedding: int = 1024
    """Size d of CLIP embeddings."""
    components: int = Field(default=319, ge=1)
    """Tokens that an image embedding becomes: its principal components."""
    buckets: int = Field(default=1024, ge=2)
    """Values a token can have."""
    text: FrozenTextConfig | CaptionEncoderConfig = Field(
        default=CaptionEncoderConfig(), discriminator="kind"
    )
    transformer: TransformerConfig = TransformerConfig(width=1664, depth=24, heads=26)


@dataclass(frozen=True)
class Condition:
    """The caption as the transformer reads it, computed once for all tokens of a sampling."""

    prefix: Float[Tensor, "b 2 width"]
    words: list[Memory]
    """Of each layer."""
    mask: Bool[Tensor, "b n"]
    """True at real words."""


class AutoregressiveNetwork(nn.Module):
    """One sequence of pooled caption · z_t · token of z_i·z_t · tokens of z_i.

    The table's 384 positions do not hold 256 words as well, so the encoded words enter every
    layer as further keys and values, as in GLIDE. Tokens share one embedding table and one output
    head; their places tell which coordinate they belong to.
    """

    def __init__(self, config: AutoregressiveNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width, text = config.transformer.width, config.text
        self.encoder = CaptionEncoder(text) if isinstance(text, CaptionEncoderConfig) else None
        states = text.transformer.width if isinstance(text, CaptionEncoderConfig) else text.width
        self.unconditional = Unconditional("learned", 1, config.embedding, states)
        self.words_in = nn.Linear(states, 2 * width * config.transformer.depth)
        self.pooled_in = nn.Linear(states, width)
        self.text_in = nn.Linear(config.embedding, width)
        self.text_scale = unit_scale(config.embedding)
        self.tokens = nn.Embedding(config.buckets, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.positions = nn.Parameter(0.01 * torch.randn(PREFIX + config.components, width))
        self.transformer = Transformer(config.transformer)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.buckets)

    def forward(
        self, tokens: Int[Tensor, "b k"], text: TextFeatures, dropped: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b k1 buckets"]:
        """Logits of each token given those before it, and of the one after the last.

        Args:
            tokens: that of z_i·z_t, then those of z_i, as many as are known.
            text: text embedding, and CLIP's states or the caption's ids.
            dropped: where True, the text is replaced by the unconditional one.
        """
        condition = self.condition(text, dropped)
        x = self._embed(condition, tokens)
        hidden = self.transformer(x, _mask(condition, x.shape[1]), condition.words)
        return self.out(self.norm(hidden[:, PREFIX - 1 :]))

    def condition(self, text: TextFeatures, dropped: Bool[Tensor, " b"]) -> Condition:
        """Encode captions, each replaced by its null where dropped, as prefix and as words."""
        if self.encoder is not None:
            # Padding has learned embeddings, which are there to be read.
            states = self.encoder(text.caption, text.caption_mask)
            text = replace(text, states=states, mask=states.new_ones(states.shape[:2]).bool())
        text = self.unconditional(text, dropped)
        dtype = self.out.weight.dtype
        states = text.states.to(dtype)
        last = text.mask.sum(dim=1) - 1
        pooled = states[torch.arange(len(states), device=states.device), last]
        embedding = (self.text_scale * text.embedding).to(dtype)
        keys_values = rearrange(
            self.words_in(states),
            "b n (two depth heads w) -> two depth b heads n w",
            two=2,
            depth=self.config.transformer.depth,
            heads=self.config.transformer.heads,
        )
        return Condition(
            torch.stack([self.pooled_in(pooled), self.text_in(embedding)], dim=1),
            [Memory(keys, values) for keys, values in zip(*keys_values, strict=True)],
            text.mask,
        )

    def _embed(
        self, condition: Condition, tokens: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b length width"]:
        x = torch.cat([condition.prefix, self.tokens(tokens).to(condition.prefix.dtype)], dim=1)
        return x + self.positions[: x.shape[1]]


class Writing:
    """A sequence that is written token by token: keys and values of past positions are kept.

    Args:
        network: in evaluation mode.
        condition: from `AutoregressiveNetwork.condition`.
    """

    @torch.no_grad()
    def __init__(self, network: AutoregressiveNetwork, condition: Condition) -> None:
        self.network, self.condition = network, condition
        room = PREFIX + network.config.components
        self.caches = [Cache(memory, room) for memory in condition.words]
        self.written = 0

    @torch.no_grad()
    def after(self, token: Int[Tensor, " b"]) -> Float[Tensor, "b buckets"]:
        """Write ``token``; returns logits of the next, in float32.

        They equal those of the whole sequence at once.
        """
        network, tokens = self.network, rearrange(token, "b -> b 1")
        if self.written == 0:
            x = network._embed(self.condition, tokens)
            mask = _mask(self.condition, x.shape[1])
        else:
            x = network.tokens(tokens).to(self.condition.prefix.dtype)
            x = x + network.positions[PREFIX + self.written]
            mask = key_mask(self.condition.mask)
        self.written += 1
        hidden = network.transformer(x, mask, self.caches)
        return network.out(network.norm(hidden[:, -1])).float()


def _mask(condition: Condition, length: int) -> Bool[Tensor, "b 1 length keys"]:
    """Every position sees all real words, itself and the positions before it."""
    words = repeat(condition.mask, "b n -> b 1 length n", length=length)
    past = causal_mask(length, words.device).expand(len(words), 1, -1, -1)
    return torch.cat([words, past], dim=-1)
