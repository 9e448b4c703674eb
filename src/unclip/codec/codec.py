"""The codec, a stage: latents -> pixels after a decoder that draws latents, and back.

A refiner like the upsamplers, but a deterministic one: it draws no noise and takes one pass. It
is imported, not trained here.
"""

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.codec.network import MoVQ, MoVQConfig
from unclip.config import Config
from unclip.errors import ImageError, TrainingError
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling, Step


class CodecConfig(Config):
    """A codec; the defaults are Kandinsky 2.2's."""

    network: MoVQConfig = MoVQConfig()


class Codec(nn.Module):
    """Latents -> image and image -> latents."""

    name: ClassVar[str] = "codec"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.network = MoVQ(config.network)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Refuse to train: what makes a codec good is an adversarial loss this program lacks.

        Raises:
            TrainingError: always.
        """
        del batch, randomness
        raise TrainingError("a codec is not trained here; import one, such as Kandinsky's MoVQ")

    def sample(self, latents: Float[Tensor, "b k y x"]) -> Sampling:
        """Decode latents, without quantising them.

        Yields:
            One step.

        Returns:
            Images [b 3 h w] near [-1, 1], `MoVQConfig.factor` times as large, in float32
            (float64 if the latents are).
        """
        latents = self._placed(latents)
        with torch.no_grad():
            images = self.network.decode(latents)
        yield Step(self.name, 0, 1, images, images)
        return images

    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k y x"]:
        """Latents of images in [-1, 1], not quantised, in float32 (float64 if the images are).

        Raises:
            ImageError: their sides are not multiples of `MoVQConfig.factor`.
        """
        height, width = images.shape[-2:]
        factor = self.config.network.factor
        if height % factor or width % factor:
            raise ImageError(
                f"an image of {width}×{height} px cannot be encoded: the codec needs sides that "
                f"are multiples of {factor}; resize it"
            )
        with torch.no_grad():
            return self.network.encode(self._placed(images))

    def _placed(self, x: Tensor) -> Tensor:
        x = x.to(self.network.to_code.weight.device)
        return x if x.dtype == torch.float64 else x.float()
