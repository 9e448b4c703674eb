"""The pre-LayerNorm transformer that CLIP, the prior and the caption encoder are made of."""

from collections.abc import Sequence
from itertools import repeat
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

from unclip.config import Config
from unclip.nn.attention import attend
from unclip.nn.layers import QuickGELU

Activation = Literal["gelu", "quick_gelu"]


class TransformerConfig(Config):
    """Size of a transformer; head width is ``width / heads``."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu"
    dropout: float = 0.0
    """Of what each MLP adds, in training."""


def causal_mask(length: int, device: torch.device | str = "cpu") -> Bool[Tensor, "length length"]:
    """True where a position (row) may attend to another (column): itself and those before."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


def key_mask(mask: Bool[Tensor, "b length"]) -> Bool[Tensor, "b 1 1 length"]:
    """Turn a mask of real tokens into one of the keys every query may attend to."""
    return rearrange(mask, "b n -> b 1 1 n")


class Memory:
    """Keys and values that a layer attends to beside those of its own input, and before them.

    Args:
        keys: [b heads k w].
        values: likewise.
    """

    def __init__(
        self, keys: Float[Tensor, "b heads k w"], values: Float[Tensor, "b heads k w"]
    ) -> None:
        self.keys, self.values = keys, values

    def joined(
        self, keys: Float[Tensor, "b heads n w"], values: Float[Tensor, "b heads n w"]
    ) -> tuple[Float[Tensor, "b heads kn w"], Float[Tensor, "b heads kn w"]]:
        """Its keys and values with those of the input after them."""
        return torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2)


class Kept(Memory):
    """An empty memory that keeps the keys and values of the input, for inputs to come."""

    def __init__(self) -> None:
        """Nothing comes before the input."""

    def joined(
        self, keys: Float[Tensor, "b heads n w"], values: Float[Tensor, "b heads n w"]
    ) -> tuple[Float[Tensor, "b heads kn w"], Float[Tensor, "b heads kn w"]]:
        """The input's keys and values alone, which are kept."""
        self.keys, self.values = keys, values
        return keys, values


class Cache(Memory):
    """A memory that keeps what joins it: a sequence can be computed position by position.

    Args:
        memory: what it begins with.
        room: positions that will join.
    """

    def __init__(self, memory: Memory, room: int) -> None:
        self.length = memory.keys.shape[2]
        super().__init__(*(pad(kept, (0, 0, 0, room)) for kept in (memory.keys, memory.values)))

    def joined(
        self, keys: Float[Tensor, "b heads n w"], values: Float[Tensor, "b heads n w"]
    ) -> tuple[Float[Tensor, "b heads kn w"], Float[Tensor, "b heads kn w"]]:
        """All keys and values so far, those of the input included, which are kept in place."""
        before, self.length = self.length, self.length + keys.shape[2]
        assert self.length <= self.keys.shape[2], "the cache has no room left"
        self.keys[:, :, before : self.length] = keys
        self.values[:, :, before : self.length] = values
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values stacked in thirds."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b length width"],
        mask: Bool[Tensor, "..."] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "b length width"]:
        """Attend; ``mask`` is as in `attend`, over the keys of ``memory`` before the input's."""
        q, k, v = rearrange(self.qkv(x), "b n (qkv h w) -> qkv b h n w", qkv=3, h=self.heads)
        if memory is not None:
            k, v = memory.joined(k, v)
        return self.out(rearrange(attend(q, k, v, mask), "b h n w -> b n (h w)"))


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.norm_1 = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.heads)
        self.norm_2 = nn.LayerNorm(config.width)
        self.mlp = nn.Sequential(
            nn.Linear(config.width, hidden),
            nn.GELU() if config.activation == "gelu" else QuickGELU(),
            nn.Linear(hidden, config.width),
            nn.Dropout(config.dropout),
        )
        self._initialise(config)

    def forward(
        self,
        x: Float[Tensor, "b length width"],
        mask: Bool[Tensor, "..."] | None = None,
        memory: Memory | None = None,
    ) -> Float[Tensor, "b length width"]:
        """Apply both residual branches."""
        x = x + self.attention(self.norm_1(x), mask, memory)
        return x + self.mlp(self.norm_2(x))

    def _initialise(self, config: TransformerConfig) -> None:
        width, depth = config.width, config.depth
        for layer, std in (
            (self.attention.qkv, width**-0.5),
            (self.attention.out, (2 * depth * width) ** -0.5),
            (self.mlp[0], (2 * width) ** -0.5),
            (self.mlp[2], (2 * depth * width) ** -0.5),
        ):
            assert isinstance(layer, nn.Linear)
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)


class Transformer(nn.Module):
    """A stack of blocks, without embeddings and without a final LayerNorm.

    Weights start as in CLIP (§5.1): attention width^-½, output projections
    width^-½·(2·depth)^-½, first MLP layer (2·width)^-½.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))

    def forward(
        self,
        x: Float[Tensor, "b length width"],
        mask: Bool[Tensor, "..."] | None = None,
        memories: Sequence[Memory] | None = None,
    ) -> Float[Tensor, "b length width"]:
        """Run all blocks.

        Args:
            x: the input.
            mask: True where a query (row) may attend to a key (column); see `attend`.
            memories: one a block, whose keys come before those of the input.
        """
        for block, memory in zip(self.blocks, memories or repeat(None), strict=False):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, mask, memory, use_reentrant=False)
            else:
                x = block(x, mask, memory)
        return x
