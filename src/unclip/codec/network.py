"""MoVQ's networks (2209.09002): image -> latents -> image. They know no diffusion."""

from functools import partial

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import silu

from unclip.codec.blocks import Level, Middle, PlainNorm, SpatialNorm
from unclip.config import Config

RGB = 3


class MoVQConfig(Config):
    """Shape of encoder and decoder; the defaults are Kandinsky 2.2's."""

    latents: int = Field(default=4, ge=1)
    """Channels of the latents."""
    codes: int = Field(default=16_384, ge=1)
    """Entries of the codebook."""
    widths: tuple[int, ...] = (128, 256, 256, 512)
    """Channels of each level; each level but the last halves the image."""
    depth: int = Field(default=2, ge=1)
    """Res-blocks a level in the encoder; one more in the decoder."""
    attention: tuple[int, ...] = (8,)
    """Downsampling factors at which blocks attend."""
    groups: int = Field(default=32, ge=1)
    """Groups of GroupNorm."""

    @property
    def factor(self) -> int:
        """How many times larger an image is than its latents."""
        return 2 ** (len(self.widths) - 1)

    @model_validator(mode="after")
    def _check(self) -> "MoVQConfig":
        if uneven := [width for width in self.widths if width % self.groups]:
            raise ValueError(f"width {uneven[0]} cannot be cut into {self.groups} groups")
        factors = {2**level for level in range(len(self.widths))}
        if unknown := set(self.attention) - factors:
            raise ValueError(f"attention at {sorted(unknown)}, but levels are {sorted(factors)}")
        return self


class Encoder(nn.Module):
    """Image -> features of the latents' size, before the projection to the code."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        norm = partial(PlainNorm, config.groups)
        widths = config.widths
        self.entrance = nn.Conv2d(RGB, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            Level(
                widths[max(level - 1, 0)],
                width,
                config.depth,
                norm,
                attends=2**level in config.attention,
                resize="down" if level < len(widths) - 1 else None,
            )
            for level, width in enumerate(widths)
        )
        self.middle = Middle(widths[-1], norm)
        self.norm = norm(widths[-1])
        self.exit = nn.Conv2d(widths[-1], config.latents, 3, padding=1)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k y x"]:
        """Shrink and describe."""
        h = self.entrance(images)
        for level in self.levels:
            h = level(h, None)
        h = self.middle(h, None)
        return self.exit(silu(self.norm(h)))


class Decoder(nn.Module):
    """Latents -> image, every norm modulated by the latents."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()

        def norm(channels: int) -> SpatialNorm:
            return SpatialNorm(config.groups, channels, config.latents)

        widths = config.widths
        last = len(widths) - 1
        self.entrance = nn.Conv2d(config.latents, widths[-1], 3, padding=1)
        self.middle = Middle(widths[-1], norm)
        self.levels = nn.ModuleList(
            Level(
                widths[min(level + 1, last)],
                widths[level],
                config.depth + 1,
                norm,
                attends=2**level in config.attention,
                resize="up" if level > 0 else None,
            )
            for level in reversed(range(len(widths)))
        )
        self.norm = norm(widths[0])
        self.exit = nn.Conv2d(widths[0], RGB, 3, padding=1)

    def forward(
        self, features: Float[Tensor, "b k y x"], code: Float[Tensor, "b k y x"]
    ) -> Float[Tensor, "b 3 h w"]:
        """Enlarge ``features``; ``code`` modulates."""
        h = self.middle(self.entrance(features), code)
        for level in self.levels:
            h = level(h, code)
        return self.exit(silu(self.norm(h, code)))


class MoVQ(nn.Module):
    """Encoder and decoder; the codebook between them, which latents here pass by, is only kept."""

    def __init__(self, config: MoVQConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.to_code = nn.Conv2d(config.latents, config.latents, 1)
        self.codebook = nn.Embedding(config.codes, config.latents)
        self.from_code = nn.Conv2d(config.latents, config.latents, 1)
        self.decoder = Decoder(config)

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k y x"]:
        """Latents of images in [-1, 1], not quantised, in the dtype of ``images``."""
        pixels = images.to(self.to_code.weight.dtype)
        return self.to_code(self.encoder(pixels)).to(images.dtype)

    def decode(self, latents: Float[Tensor, "b k y x"]) -> Float[Tensor, "b 3 h w"]:
        """Images near [-1, 1], in the dtype of ``latents``, which need not be codes."""
        code = latents.to(self.from_code.weight.dtype)
        return self.decoder(self.from_code(code), code).to(latents.dtype)
