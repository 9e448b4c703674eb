"""The ADM U-Net (2105.05233) with joint attention to context tokens, as in GLIDE (§1.5).

It serves the decoder and, without attention, the upsamplers; it knows neither.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle, silu
from torch.utils.checkpoint import checkpoint

from unclip.config import Config
from unclip.nn.layers import TimeEmbedding
from unclip.nn.unet_blocks import (
    Image,
    JointAttention,
    PatchExit,
    Resample,
    ResBlock,
    Resize,
    group_norm,
    zeroed,
)


class UNetConfig(Config):
    """Shape of a U-Net. The defaults are ADM's; sizes have none."""

    in_channels: int
    out_channels: int
    channels: int
    """Width of the first level."""
    multipliers: tuple[int, ...]
    """Width of each level in units of ``channels``; each level but the last halves the image."""
    depth: int
    """Res-blocks a level on the way down; one more on the way up."""
    attention: tuple[int, ...] = ()
    """Downsampling factors at which blocks attend: 64 px with (2, 4, 8) attends at 32, 16, 8.
    Counted from the grid of patches, where ``patch`` is above 1."""
    middle_attention: bool = True
    head_channels: int = 64
    context_width: int | None = None
    """Width of the context tokens; None: attention among pixels alone."""
    dropout: float = 0.0
    scale_shift_norm: bool = True
    """The embedding scales and shifts (FiLM); otherwise it is added."""
    resblock_updown: bool = True
    """Halve and double inside res-blocks (BigGAN); otherwise by convolutions."""
    groups: int = 32
    """Groups of GroupNorm at most. On CPUs, groups of 16 channels and more are far faster."""
    patch: int = 1
    """Side of the patches folded into channels at the entrance; 1: none, as in the paper."""

    bandwidths: tuple[float, ...] = ()
    """Of the deviations from like neighbours that the exit of patches reads, so that noise shows
    that is faint beside the picture; see `unet_blocks.deviations`. None in the paper."""

    @property
    def embedding_width(self) -> int:
        """Width of the time embedding and of whatever is added to it: 4 × channels (§1.5)."""
        return 4 * self.channels

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    @model_validator(mode="after")
    def _check(self) -> "UNetConfig":
        factors = {2**level for level in range(len(self.multipliers))}
        if unknown := set(self.attention) - factors:
            raise ValueError(f"attention at {sorted(unknown)}, but levels are {sorted(factors)}")
        if self.bandwidths and self.patch == 1:
            raise ValueError("bandwidths belong to the exit of patches: set patch above 1")
        if min(self.bandwidths, default=1) <= 0:
            raise ValueError(f"bandwidths must be above 0, got {self.bandwidths}")
        if self.context_width is not None and not (self.attention or self.middle_attention):
            raise ValueError("a context_width needs attention somewhere")
        attended = {self.multipliers[f.bit_length() - 1] for f in self.attention}
        attended |= {self.multipliers[-1]} if self.middle_attention else set()
        for channels in {m * self.channels for m in attended}:
            if channels > self.head_channels and channels % self.head_channels:
                raise ValueError(f"{channels} channels are not whole heads of {self.head_channels}")
        return self


@dataclass(frozen=True)
class PreparedContext:
    """Context tokens as keys and values of every attention block, computed once per sampling."""

    keys_values: tuple[Float[Tensor, "b k _"], ...]
    mask: Bool[Tensor, "b k"] | None = None

    def first(self, count: int) -> "PreparedContext":
        """The context of the first ``count`` samples, as views."""
        mask = None if self.mask is None else self.mask[:count]
        return PreparedContext(tuple(kv[:count] for kv in self.keys_values), mask)


class Block(nn.Module):
    """A res-block, attention where the level has it, and a resize at the end of a level up."""

    def __init__(
        self,
        residual: nn.Module,
        attention: nn.Module | None = None,
        resize: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.attention = attention
        self.resize = resize

    def forward(
        self,
        x: Image,
        embedding: Float[Tensor, "b e"],
        context: Float[Tensor, "b k kv"] | None,
        mask: Bool[Tensor, "b k"] | None,
    ) -> Float[Tensor, "b c2 h2 w2"]:
        """Apply the parts that are present, in that order."""
        x = self.residual(x, embedding)
        if self.attention is not None:
            x = self.attention(x, context, mask)
        return x if self.resize is None else self.resize(x, embedding)


class UNet(nn.Module):
    """ADM's U-Net: every block on the way down leaves a skip for one on the way up.

    ``down``, ``middle`` and ``up`` list blocks in the order of ADM's input, middle and output
    blocks.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.time = TimeEmbedding(config.channels, config.embedding_width)
        widths = [config.channels * m for m in config.multipliers]
        entrance = config.in_channels * config.patch**2
        self.entrance = nn.Conv2d(entrance, config.channels, 3, padding=1)

        here = config.channels
        skips = [here]
        self.down = nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(config.depth):
                self.down.append(self._block(here, width, level))
                here = width
                skips.append(here)
            if level < len(widths) - 1:
                self.down.append(Block(self._resize(here, "down")))
                skips.append(here)

        middle = Block(self._residual(here, here), self._attention(here, config.middle_attention))
        self.middle = nn.ModuleList([middle, Block(self._residual(here, here))])

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for index in range(config.depth + 1):
                last = level > 0 and index == config.depth
                resize = self._resize(width, "up") if last else None
                self.up.append(self._block(here + skips.pop(), width, level, resize))
                here = width

        self.norm = group_norm(here, config.groups)
        outputs = config.out_channels
        self.exit = (
            zeroed(nn.Conv2d(here, outputs, 3, padding=1))
            if config.patch == 1
            else PatchExit(
                here,
                config.in_channels,
                outputs,
                config.embedding_width,
                config.patch,
                config.bandwidths,
            )
        )

    def prepare_context(
        self, tokens: Float[Tensor, "b k f"], mask: Bool[Tensor, "b k"] | None = None
    ) -> PreparedContext:
        """Project context tokens for every attention block, for reuse at every step.

        Args:
            tokens: of width ``config.context_width``.
            mask: True at real tokens; all are real if missing.
        """
        tokens = tokens.to(self.entrance.weight.dtype)
        attentions = (part for part in self.modules() if isinstance(part, JointAttention))
        return PreparedContext(tuple(part.project(tokens) for part in attentions), mask)

    def forward(
        self,
        x: Image,
        t: Shaped[Tensor, " b"],
        embedding: Float[Tensor, "b e"] | None = None,
        context: PreparedContext | None = None,
        layout: Float[Tensor, "b channels h3 w3"] | None = None,
    ) -> Float[Tensor, "b c2 h w"]:
        """Run the network.

        Args:
            x: image, of any dtype; the network computes in its own and answers in that of ``x``.
            t: timesteps, not rescaled.
            embedding: condition added to the time embedding, ``config.embedding_width`` wide.
            context: tokens to attend to, from `prepare_context`.
            layout: condition added to the first level, ``config.channels`` deep and of its size
                (that of ``x`` over ``config.patch``).
        """
        patch = self.config.patch
        pixels = x.to(self.entrance.weight.dtype)
        h = self.entrance(pixels if patch == 1 else pixel_unshuffle(pixels, patch))
        if layout is not None:
            h = h + layout
        time = self.time(t)
        emb = silu(time if embedding is None else time + embedding.to(time.dtype))

        keys_values = iter(context.keys_values if context is not None else ())
        mask = context.mask if context is not None else None

        def run(block: nn.Module, h: Tensor) -> Tensor:
            kv = next(keys_values, None) if block.attention is not None else None
            if self.gradient_checkpointing and torch.is_grad_enabled():
                return checkpoint(block, h, emb, kv, mask, use_reentrant=False)
            return block(h, emb, kv, mask)

        skips = [h]
        for block in self.down:
            h = run(block, h)
            skips.append(h)
        for block in self.middle:
            h = run(block, h)
        for block in self.up:
            # Named anew before the block runs, so that it need not hold the parts as well.
            h = torch.cat([h, skips.pop()], dim=1)
            h = run(block, h)
        h = silu(self.norm(h))
        return (self.exit(h) if patch == 1 else self.exit(h, x, emb)).to(x.dtype)

    def _block(
        self, channels: int, out_channels: int, level: int, resize: nn.Module | None = None
    ) -> Block:
        attends = 2**level in self.config.attention
        residual = self._residual(channels, out_channels)
        return Block(residual, self._attention(out_channels, attends), resize)

    def _residual(
        self, channels: int, out_channels: int, direction: Resample | None = None
    ) -> ResBlock:
        config = self.config
        return ResBlock(
            channels,
            out_channels,
            config.embedding_width,
            groups=config.groups,
            dropout=config.dropout,
            scale_shift=config.scale_shift_norm,
            direction=direction,
        )

    def _attention(self, channels: int, attends: bool) -> JointAttention | None:
        if not attends:
            return None
        config = self.config
        return JointAttention(
            channels, config.head_channels, config.context_width, groups=config.groups
        )

    def _resize(self, channels: int, direction: Resample) -> nn.Module:
        if self.config.resblock_updown:
            return self._residual(channels, channels, direction)
        return Resize(channels, direction)
