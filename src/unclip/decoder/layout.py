"""z_i as a coarse picture that is added where the image enters the U-Net.

The paper hands z_i to the U-Net as a vector and a few tokens; where things go, convolutions must
then find out from their padding, which takes long. A small network learns shapes far sooner when
z_i says where they are. Not part of the paper.
"""

from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from unclip.config import Config


class LayoutConfig(Config):
    """Size of the coarse picture."""

    side: int = Field(default=8, ge=1)
    """Its height and width."""
    channels: int = Field(default=16, ge=1)
    hidden: int = Field(default=512, ge=1)
    """Width of the layer between z_i and the picture."""


class Layout(nn.Module):
    """Two layers from z_i to a picture, and a convolution to the U-Net's channels.

    Args:
        config: size of the picture.
        embedding: size d of z_i.
        channels: of the U-Net's first level.
    """

    def __init__(self, config: LayoutConfig, embedding: int, channels: int) -> None:
        super().__init__()
        self.side = config.side
        self.hidden = nn.Linear(embedding, config.hidden)
        self.paint = nn.Linear(config.hidden, config.channels * config.side**2)
        self.widen = nn.Conv2d(config.channels, channels, 3, padding=1)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b c side side"]:
        """Paint z_i, already scaled."""
        picture = self.paint(silu(self.hidden(z)))
        return rearrange(picture, "b (c h w) -> b c h w", h=self.side, w=self.side)

    def spread(
        self, picture: Float[Tensor, "b c side side"], size: tuple[int, int]
    ) -> Float[Tensor, "b channels h w"]:
        """Enlarge the picture to ``size``, the height and width of the U-Net's first level."""
        enlarged = interpolate(picture, size=size, mode="bilinear", align_corners=False)
        return self.widen(enlarged)
