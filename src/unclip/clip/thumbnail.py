"""A head that redraws small pictures from z_i while CLIP trains.

Captions say little of layout and shape, and on small data z_i soon holds little else than what
captions say. The decoder has to draw from z_i, so this second loss keeps in it what a picture looks
like from afar. It is not part of the paper; the head is of no use after training.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class Thumbnail(nn.Module):
    """Two layers from a unit z_i to a picture of ``side`` pixels.

    Args:
        embedding: dimension d of z_i.
        side: height and width of the picture.
    """

    def __init__(self, embedding: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.scale = embedding**0.5
        self.layers = nn.Sequential(
            nn.Linear(embedding, 2 * embedding), nn.GELU(), nn.Linear(2 * embedding, 3 * side**2)
        )

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b 3 side side"]:
        """Draw the picture, in [-1, 1]; a unit z_i is first scaled to unit variance."""
        pixels = self.layers(z * self.scale)
        return rearrange(pixels, "b (c h w) -> b c h w", c=3, h=self.side)

    def loss(self, z: Float[Tensor, "b d"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, ""]:
        """Unexplained share of variance: of the mean colours, plus of what differs from them.

        Each counts alike, though flat backgrounds hold most of the variance of drawings.

        Args:
            z: unit embeddings.
            images: what they embed, of any size.
        """
        target = functional.interpolate(images.float(), size=self.side, mode="area")
        colour, shape = _parts(target)
        drawn_colour, drawn_shape = _parts(self(z).float())
        return _unexplained(drawn_colour, colour) + _unexplained(drawn_shape, shape)


def _parts(images: Tensor) -> tuple[Tensor, Tensor]:
    mean = images.mean(dim=(2, 3), keepdim=True)
    return mean, images - mean


def _unexplained(drawn: Tensor, target: Tensor) -> Tensor:
    variance = (target - target.mean(dim=0)).square().mean()
    return functional.mse_loss(drawn, target) / variance.clamp(min=torch.finfo(torch.float32).eps)
