"""The two towers of CLIP with the scale, and for the sigmoid loss the bias, of their cosines."""

import torch
from torch import nn

from unclip.clip.resnet import ModifiedResNet, ModifiedResNetConfig
from unclip.clip.text import TextConfig, TextTower
from unclip.clip.thumbnail import Thumbnail
from unclip.clip.vision import ViT, ViTConfig
from unclip.errors import CheckpointError


def lacking(tower: str) -> CheckpointError:
    """The error of a CLIP that does not have what is asked for."""
    embedded = {"image": "images", "text": "captions"}[tower]
    return CheckpointError(
        f"this CLIP has no {tower} tower and embeds no {embedded}: choose a model, or to train "
        "name a CLIP by --clip, that has both towers"
    )


class ClipNetwork(nn.Module):
    """Everything of CLIP that is trained.

    Args:
        image: which image tower, and its size; None for none.
        text: size of the text tower; None for none.
        embedding: dimension d of the joint space.
        logit_scale: initial logarithm of the scale.
        logit_bias: initial bias of the sigmoid loss; none for the softmax loss.
        thumbnail: side of the pictures a second head draws in training; none without it.
    """

    def __init__(
        self,
        image: ViTConfig | ModifiedResNetConfig | None,
        text: TextConfig | None,
        embedding: int,
        logit_scale: float,
        logit_bias: float | None = None,
        thumbnail: int | None = None,
    ) -> None:
        super().__init__()
        self.image: ViT | ModifiedResNet | None
        if image is None:
            self.image = None
        elif isinstance(image, ViTConfig):
            self.image = ViT(image, embedding)
        else:
            self.image = ModifiedResNet(image, embedding)
        self.text = None if text is None else TextTower(text, embedding)
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))
        self.thumbnail = None if thumbnail is None else Thumbnail(embedding, thumbnail)

    def image_tower(self) -> ViT | ModifiedResNet:
        """What embeds images.

        Raises:
            CheckpointError: there is none.
        """
        if self.image is None:
            raise lacking("image")
        return self.image

    def text_tower(self) -> TextTower:
        """What embeds captions.

        Raises:
            CheckpointError: there is none.
        """
        if self.text is None:
            raise lacking("text")
        return self.text
