"""What a pass without text sees instead of CLIP's text features (§1.3, §1.4, §4.2).

Prior and decoder share it; it knows neither.
"""

from dataclasses import replace
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool
from torch import Tensor, nn

from unclip.nn.measured import Measured
from unclip.types import TextFeatures

UnconditionalKind = Literal["learned", "stored", "none"]


class Unconditional(Measured):
    """The text features of a pass without text; they travel with the checkpoint.

    Args:
        kind: ``learned`` trains them with the network. ``stored`` keeps the encoding of the empty
            prompt, set once by `store` (Karlo, Kandinsky); until then it is NaN, so that a
            checkpoint lacking it cannot be mistaken for one that has it. ``none``: the network is
            never called without text.
        tokens: how many text tokens such a pass sees: 2 for the empty prompt, [SOT] and [EOT].
        embedding: size d of the text embedding.
        states: width f of the text states.
    """

    embedding: Tensor
    states: Tensor

    def __init__(self, kind: UnconditionalKind, tokens: int, embedding: int, states: int) -> None:
        stored = {"embedding": (embedding,), "states": (tokens, states)}
        super().__init__(stored if kind == "stored" else {})
        self.kind = kind
        if kind == "learned":
            # Text states leave a LayerNorm and are of size 1; text embeddings have unit length.
            self.embedding = nn.Parameter(torch.randn(embedding) * embedding**-0.5)
            self.states = nn.Parameter(torch.randn(tokens, states))

    def store(self, empty: TextFeatures) -> None:
        """Keep the encoding of the empty prompt: the first row of ``empty``, its real tokens.

        The text encoder belongs to another stage, so whoever imports or assembles a network of
        kind ``stored`` encodes the empty prompt and hands it over here.
        """
        assert self.kind == "stored", "learned text features are trained, not stored"
        self.embedding.copy_(empty.embedding[0])
        self.states.copy_(empty.states[0][empty.mask[0]])

    def forward(self, text: TextFeatures | None, dropped: Bool[Tensor, " b"]) -> TextFeatures:
        """Replace text embedding, states and mask together where ``dropped`` is True.

        The result is new; ``text`` is left as it is, and None drops it everywhere. It is at least
        as long as the unconditional text, with padding after the real tokens.
        """
        if self.kind == "none":
            assert text is not None, "this network reads text"
            return text
        if text is None:
            return self._alone(len(dropped))
        tokens = len(self.states)
        text = pad(text, tokens)
        states = nn.functional.pad(self.states, (0, 0, 0, text.mask.shape[1] - tokens))
        mask = torch.arange(text.mask.shape[1], device=text.mask.device) < tokens
        rows = rearrange(dropped, "b -> b 1")
        return replace(
            text,
            embedding=torch.where(rows, self.embedding, text.embedding),
            states=torch.where(rearrange(dropped, "b -> b 1 1"), states, text.states),
            mask=torch.where(rows, mask, text.mask),
        )

    def _alone(self, batch: int) -> TextFeatures:
        nothing = torch.zeros(batch, 0, dtype=torch.int64, device=self.states.device)
        return TextFeatures(
            embedding=repeat(self.embedding, "d -> b d", b=batch),
            states=repeat(self.states, "n f -> b n f", b=batch),
            mask=nothing.new_ones(batch, len(self.states), dtype=torch.bool),
            caption=nothing,
            caption_mask=nothing.bool(),
        )


def pad(text: TextFeatures, length: int) -> TextFeatures:
    """Lengthen text states and mask with padding to at least ``length`` tokens."""
    missing = length - text.mask.shape[1]
    if missing <= 0:
        return text
    return replace(
        text,
        states=nn.functional.pad(text.states, (0, 0, 0, missing)),
        mask=nn.functional.pad(text.mask, (0, missing)),
    )
