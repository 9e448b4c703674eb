"""From decoded pixels to the tensor a stage trains on. Every random choice follows a seed."""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor

from unclip import images
from unclip.config import Config
from unclip.data.source import BadSample
from unclip.randomness import derive_seed
from unclip.upsampler.crops import choose_crop


@runtime_checkable
class Transform(Protocol):
    """Makes images of any size equally large; must pickle, since loader workers are processes."""

    def __call__(
        self, pixels: UInt8[np.ndarray, "h w 3"], seed: int, key: str
    ) -> Float[Tensor, "3 size size"]:
        """Return the image in [-1, 1].

        Args:
            pixels: the decoded image.
            seed: the same seed makes the same choices.
            key: the sample's name, for errors.

        Raises:
            BadSample: the image does not suit, such as being too small.
        """
        ...

    def keeps(self, height: int, width: int) -> bool:
        """Whether images of this size pass unchanged, so that a whole batch can skip it."""
        ...


class SquareResize(Config):
    """Resize the shorter side to ``size`` and cut a square out.

    CLIP trains on random squares (its paper, §2.4: the only augmentation); everything else, and
    CLIP when it embeds, takes the middle. Small images are enlarged.
    """

    size: int = Field(gt=0)
    crop: Literal["centre", "random"] = "centre"

    def __call__(
        self, pixels: UInt8[np.ndarray, "h w 3"], seed: int, key: str
    ) -> Float[Tensor, "3 size size"]:
        """Return the image in [-1, 1]."""
        image = images.resize(Image.fromarray(pixels), self.size)
        if self.crop == "centre":
            return images.to_tensor(images.centre_crop(image, self.size))
        left, top = (
            derive_seed(seed, axis) % (side - self.size + 1)
            for axis, side in zip("xy", image.size, strict=True)
        )
        return images.to_tensor(image.crop((left, top, left + self.size, top + self.size)))

    def keeps(self, height: int, width: int) -> bool:
        """Whether images of this size pass unchanged."""
        return height == width == self.size


class RandomCropMultiple(Config):
    """Cut a square at a random place whose coordinates are multiples of ``multiple``.

    Upsamplers train on such crops of the high resolution (§1.6: 64 of 256, 256 of 1,024): with
    multiples of 4 the crop has an exact counterpart in the image of a quarter of the size.
    """

    size: int = Field(gt=0)
    """Side of the crop."""
    image_size: int | None = Field(default=None, gt=0)
    """Length the image's shorter side is reduced to first; None takes images as they are."""
    multiple: int = Field(default=4, gt=0)
    candidates: int = Field(default=1, gt=0)
    """Places to choose from, those with more edges more often; 1 is the paper's uniform crop."""

    def __call__(
        self, pixels: UInt8[np.ndarray, "h w 3"], seed: int, key: str
    ) -> Float[Tensor, "3 size size"]:
        """Return the crop in [-1, 1].

        Raises:
            BadSample: the image is smaller than needed. Enlarging it would teach the upsampler
                to draw blur.
        """
        image = Image.fromarray(pixels)
        needed = max(self.size, self.image_size or 0)
        if min(image.size) < needed:
            size = f"{image.width} × {image.height}"
            raise BadSample(key, "image too small", f"{size}, {needed} are needed")
        if self.image_size is not None:
            image = images.resize(image, self.image_size)
        pixels = np.asarray(image)
        rng = np.random.default_rng(seed)
        top, left = choose_crop(pixels, self.size, self.multiple, rng, self.candidates)
        return images.to_tensor(pixels[top : top + self.size, left : left + self.size])

    def keeps(self, height: int, width: int) -> bool:
        """Whether images of this size pass unchanged."""
        return height == width == self.size and self.image_size in (None, self.size)
