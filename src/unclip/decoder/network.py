"""The decoder's network (§1.5): the U-Net, and what conditions it. It knows no noise schedule."""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Shaped
from pydantic import Field, model_validator
from torch import Tensor, nn

from unclip.config import Config
from unclip.decoder.conditioning import (
    CaptionGuidance,
    ClipStatesConfig,
    ClipStatesGuidance,
    ImageEmbeddingConfig,
    ImageGuidance,
    NoText,
    TextConfig,
)
from unclip.nn.caption_encoder import CaptionEncoderConfig
from unclip.nn.unet import PreparedContext, UNet, UNetConfig
from unclip.types import TextFeatures


class DecoderNetworkConfig(Config):
    """The U-Net and its conditioning."""

    unet: UNetConfig
    embedding: int
    """Size d of CLIP embeddings."""
    image: ImageEmbeddingConfig = ImageEmbeddingConfig()
    text: TextConfig = Field(default=CaptionEncoderConfig(), discriminator="kind")

    @model_validator(mode="after")
    def _check(self) -> "DecoderNetworkConfig":
        width = self.unet.context_width
        if width is None:
            raise ValueError("unet.context_width must be set: z_i enters as tokens too")
        if isinstance(self.text, CaptionEncoderConfig) and self.text.transformer.width != width:
            raise ValueError(
                f"unet.context_width is {width}, the caption encoder's width "
                f"{self.text.transformer.width}; its states are the context, so set them equal"
            )
        return self


@dataclass(frozen=True)
class Condition:
    """z_i and caption as the U-Net takes them, computed once for all steps of a sampling."""

    embedding: Float[Tensor, "b e"]
    context: PreparedContext
    layout: Float[Tensor, "b c side side"] | None = None

    def first(self, count: int) -> "Condition":
        """The condition of the first ``count`` samples."""
        layout = None if self.layout is None else self.layout[:count]
        return Condition(self.embedding[:count], self.context.first(count), layout)


class DecoderNetwork(nn.Module):
    """A U-Net that sees z_i and a caption."""

    def __init__(self, config: DecoderNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet(config.unet)
        width = config.unet.context_width
        assert width is not None
        time = config.unet.embedding_width
        self.image = ImageGuidance(
            config.image, config.embedding, time, width, config.unet.channels
        )
        self.text = _text_guidance(config, self.image.scale, time, width)

    def condition(
        self,
        image_embedding: Float[Tensor, "b d"] | None,
        text: TextFeatures | None,
        drop_image: Bool[Tensor, " b"],
        drop_text: Bool[Tensor, " b"],
    ) -> Condition:
        """Project z_i and encode captions, each replaced by its null where dropped or None."""
        guide = self.image(image_embedding, drop_image)
        words = self.text(text, drop_text)
        if words is not None:
            guide = guide.joined(words)
        # Most contexts have no padding; attention without a mask is faster.
        mask = guide.mask if isinstance(self.text, ClipStatesGuidance) else None
        context = self.unet.prepare_context(guide.tokens, mask)
        return Condition(guide.embedding, context, guide.layout)

    def forward(
        self, x_t: Float[Tensor, "b c h w"], t: Shaped[Tensor, " b"], condition: Condition
    ) -> Float[Tensor, "b c2 h w"]:
        """The network's output for x_t, in its dtype; its meaning is the process's affair."""
        layout = condition.layout
        if layout is not None:
            assert self.image.layout is not None
            patch = self.config.unet.patch
            layout = self.image.layout.spread(
                layout, (x_t.shape[-2] // patch, x_t.shape[-1] // patch)
            )
        return self.unet(x_t, t, condition.embedding, condition.context, layout)


def _text_guidance(
    config: DecoderNetworkConfig, scale: float, time: int, width: int
) -> CaptionGuidance | ClipStatesGuidance | NoText:
    match config.text:
        case CaptionEncoderConfig():
            return CaptionGuidance(config.text, time)
        case ClipStatesConfig():
            return ClipStatesGuidance(config.text, config.embedding, scale, time, width)
        case _:
            return NoText()
