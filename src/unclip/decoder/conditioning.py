"""How z_i and the caption reach the decoder's U-Net, and what stands in for one that is dropped.

Each part gives a `Guide`: something for the time embedding and tokens to attend to (§1.5).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from unclip.config import Config
from unclip.decoder.layout import Layout, LayoutConfig
from unclip.nn.caption_encoder import CaptionEncoder, CaptionEncoderConfig
from unclip.nn.layers import unit_scale
from unclip.nn.measured import Measured
from unclip.nn.unconditional import Unconditional, UnconditionalKind
from unclip.types import TextFeatures


class ClipStatesConfig(Config):
    """Captions as the states of the frozen CLIP text tower, Karlo's way."""

    kind: Literal["clip_states"] = "clip_states"
    states: int
    """Width f of CLIP's text states."""
    unconditional: UnconditionalKind = "learned"
    """What a dropped caption becomes: trained vectors, or CLIP's encoding of the empty prompt."""
    unconditional_tokens: int = Field(default=1, ge=1)
    """How many states that has; 2 for the empty prompt, [SOT] and [EOT]."""


class NoTextConfig(Config):
    """A decoder that sees z_i alone."""

    kind: Literal["none"] = "none"


TextConfig = CaptionEncoderConfig | ClipStatesConfig | NoTextConfig


class ImageEmbeddingConfig(Config):
    """How z_i enters."""

    tokens: int = Field(default=4, ge=1)
    """How many context tokens it becomes, besides joining the time embedding."""
    token_order: Literal["token_major", "channel_major"] = "token_major"
    """How the projection is cut into tokens: one after the other, or interleaved as in Karlo."""
    scale: float | None = Field(default=None, gt=0)
    """Factor on embeddings of either kind; None for §1.2's 0.5375·√d. Karlo's is 1."""
    null: Literal["learned", "stored", "zeros"] = "learned"
    """What a dropped z_i becomes; ``stored``: an embedding kept with the weights, in Kandinsky
    CLIP's of an image whose standardised pixels are zero."""
    norm: bool = False
    """LayerNorm after either projection, as in Kandinsky."""
    layout: LayoutConfig | None = None
    """Paint z_i on the U-Net's first level as well; not the paper's."""


@dataclass(frozen=True)
class Guide:
    """What one source of conditioning adds."""

    embedding: Float[Tensor, "b e"]
    """To the time embedding."""
    tokens: Float[Tensor, "b k width"]
    """To the context of joint attention."""
    mask: Bool[Tensor, "b k"]
    """True at tokens that may be attended to."""
    layout: Float[Tensor, "b c side side"] | None = None
    """A coarse picture, see `Layout`."""

    def joined(self, other: "Guide") -> "Guide":
        """Both: embeddings added, tokens of ``self`` first."""
        return Guide(
            self.embedding + other.embedding,
            torch.cat([self.tokens, other.tokens], dim=1),
            torch.cat([self.mask, other.mask], dim=1),
            self.layout,
        )


class ImageGuidance(nn.Module):
    """z_i, scaled -> Linear to the time embedding, and Linear to a few tokens.

    One mask drops it from both paths: a null vector takes its place before either.
    """

    def __init__(
        self,
        config: ImageEmbeddingConfig,
        embedding: int,
        time_width: int,
        context_width: int,
        channels: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.size = embedding
        self.scale = config.scale or unit_scale(embedding)
        self.null = nn.Parameter(torch.zeros(embedding)) if config.null == "learned" else None
        self.to_time = nn.Linear(embedding, time_width)
        self.to_tokens = nn.Linear(embedding, config.tokens * context_width)
        self.stored = Measured({"embedding": (embedding,)}) if config.null == "stored" else None
        self.norm_time = nn.LayerNorm(time_width) if config.norm else nn.Identity()
        self.norm_tokens = nn.LayerNorm(context_width) if config.norm else nn.Identity()
        self.layout = None if config.layout is None else Layout(config.layout, embedding, channels)

    def forward(
        self, image_embedding: Float[Tensor, "b d"] | None, dropped: Bool[Tensor, " b"]
    ) -> Guide:
        """Project z_i; None drops it everywhere."""
        weight = self.to_time.weight
        null = self._null(weight)
        if image_embedding is None:
            z = repeat(null, "d -> b d", b=len(dropped))
        else:
            z = (self.scale * image_embedding).to(weight.dtype)
            z = torch.where(rearrange(dropped, "b -> b 1"), null, z)
        interleaved = self.config.token_order == "channel_major"
        pattern = "b (c k) -> b k c" if interleaved else "b (k c) -> b k c"
        tokens = rearrange(self.to_tokens(z), pattern, k=self.config.tokens)
        mask = dropped.new_ones(tokens.shape[:2])
        layout = None if self.layout is None else self.layout(z)
        return Guide(self.norm_time(self.to_time(z)), self.norm_tokens(tokens), mask, layout)

    def _null(self, like: Tensor) -> Float[Tensor, " d"]:
        if self.null is not None:
            return self.null
        if self.stored is not None:
            stored = self.scale * self.stored.get_buffer("embedding")
            return stored.to(like.device, like.dtype)
        # Not `new_zeros`: packed weights have none.
        return torch.zeros(self.size, dtype=like.dtype, device=like.device)


class CaptionGuidance(nn.Module):
    """The paper's caption encoder: its last state to the time embedding, all states as tokens."""

    def __init__(self, config: CaptionEncoderConfig, time_width: int) -> None:
        super().__init__()
        self.encoder = CaptionEncoder(config)
        self.to_time = nn.Linear(config.transformer.width, time_width)

    def forward(self, text: TextFeatures | None, dropped: Bool[Tensor, " b"]) -> Guide:
        """Encode captions; a dropped one is the empty caption."""
        if text is None:
            ids = torch.zeros(len(dropped), 0, dtype=torch.long, device=dropped.device)
            mask = ids.bool()
        else:
            ids, mask = text.caption, text.caption_mask & ~rearrange(dropped, "b -> b 1")
        states = self.encoder(ids, mask)
        # Padding has learned embeddings (see `CaptionEncoder`), which are there to be read.
        everything = dropped.new_ones(states.shape[:2])
        return Guide(self.to_time(states[:, -1]), states, everything)


class ClipStatesGuidance(nn.Module):
    """CLIP's text embedding to the time embedding, its text states as tokens (Karlo)."""

    def __init__(
        self, config: ClipStatesConfig, embedding: int, scale: float, time_width: int, width: int
    ) -> None:
        super().__init__()
        self.scale = scale
        self.unconditional = Unconditional(
            config.unconditional, config.unconditional_tokens, embedding, config.states
        )
        self.to_time = nn.Linear(embedding, time_width)
        self.to_tokens = nn.Linear(config.states, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, text: TextFeatures | None, dropped: Bool[Tensor, " b"]) -> Guide:
        """Project text features; dropped ones are replaced, states and embedding together."""
        dtype = self.to_time.weight.dtype
        text = self.unconditional(text, dropped)
        return Guide(
            self.to_time((self.scale * text.embedding).to(dtype)),
            self.norm(self.to_tokens(text.states.to(dtype))),
            text.mask,
        )


class NoText(nn.Module):
    """No text conditioning."""

    def forward(self, text: TextFeatures | None, dropped: Bool[Tensor, " b"]) -> None:
        """Add nothing."""
        del text, dropped
