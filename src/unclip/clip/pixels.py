"""From any image in [-1, 1] to the standardised square an image tower reads (§5.1)."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Fit = Literal["crop", "squash"]
"""``crop``: shortest side to size, then the centre. ``squash``: straight to a square (Karlo)."""


def prepare(
    images: Float[Tensor, "b 3 h w"],
    size: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    fit: Fit = "crop",
) -> Float[Tensor, "b 3 size size"]:
    """Resize (bicubic, antialiased) where needed and standardise; computed in float32.

    Args:
        images: in [-1, 1], of any size.
        size: side of the square in pixels.
        mean: of the channels, for images in [0, 1].
        std: of the channels, for images in [0, 1].
        fit: what becomes of images that are not square.
    """
    # Resizing in half precision is visibly inexact.
    images = square(images if images.itemsize >= 4 else images.float(), size, fit)
    centre = images.new_tensor(mean).view(3, 1, 1) * 2 - 1
    spread = images.new_tensor(std).view(3, 1, 1) * 2
    return (images - centre) / spread


def square(
    images: Float[Tensor, "b 3 h w"], size: int, fit: Fit = "crop"
) -> Float[Tensor, "b 3 size size"]:
    """Bring images to size × size; those that have it already are left exactly as they are."""
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    short = min(height, width)
    target = (size, size)
    if fit == "crop":
        target = (size * height // short, size * width // short)
    if target != (height, width):
        images = functional.interpolate(images, target, mode="bicubic", antialias=True)
        # Bicubic overshoots at edges; an image file could not hold that.
        images = images.clamp(-1, 1)
    top, left = ((side - size) // 2 for side in target)
    return images[..., top : top + size, left : left + size]
