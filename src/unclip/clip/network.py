"""The two towers of CLIP with the scale, and for the sigmoid loss the bias, of their cosines."""

import torch
from torch import nn

from unclip.clip.resnet import ModifiedResNet, ModifiedResNetConfig
from unclip.clip.text import TextConfig, TextTower
from unclip.clip.vision import ViT, ViTConfig


class ClipNetwork(nn.Module):
    """Everything of CLIP that is trained.

    Args:
        image: which image tower, and its size.
        text: size of the text tower.
        embedding: dimension d of the joint space.
        logit_scale: initial logarithm of the scale.
        logit_bias: initial bias of the sigmoid loss; none for the softmax loss.
    """

    def __init__(
        self,
        image: ViTConfig | ModifiedResNetConfig,
        text: TextConfig,
        embedding: int,
        logit_scale: float,
        logit_bias: float | None = None,
    ) -> None:
        super().__init__()
        self.image = (
            ViT(image, embedding)
            if isinstance(image, ViTConfig)
            else ModifiedResNet(image, embedding)
        )
        self.text = TextTower(text, embedding)
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))
        self.logit_bias = None if logit_bias is None else nn.Parameter(torch.tensor(logit_bias))
