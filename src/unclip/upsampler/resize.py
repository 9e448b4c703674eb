"""The one resize filter of the upsamplers, for training and sampling alike (§1.6).

Antialiased bicubic, in float32 or wider: the paper names no filter, and what matters is that
both sides of a checkpoint use the same.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def enlarge(low: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c H W"]:
    """Enlarge by an integer factor; may overshoot [-1, 1] a little, which the network sees."""
    return _bicubic(low, low.shape[-2] * factor, low.shape[-1] * factor)


def shrink(high: Float[Tensor, "b c H W"], factor: int) -> Float[Tensor, "b c h w"]:
    """Shrink by an integer factor, clamped to [-1, 1] as any stored or decoded image is.

    Height and width must be multiples of ``factor``: otherwise both grids would not align.
    """
    height, width = high.shape[-2:]
    assert height % factor == 0, (height, factor)
    assert width % factor == 0, (width, factor)
    return _bicubic(high, height // factor, width // factor).clamp(-1.0, 1.0)


def _bicubic(images: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    images = images if images.itemsize >= 4 else images.float()
    return functional.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
