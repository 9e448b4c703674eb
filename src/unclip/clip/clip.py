"""CLIP, the stage: captions and images in one embedding space (paper §1.1, §5; arXiv 2103.00020).

It binds the two towers, the tokenizer and the contrastive loss.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unclip.clip.losses import at_least_float32, sigmoid_loss, softmax_loss
from unclip.clip.network import ClipNetwork, lacking
from unclip.clip.pixels import Fit, prepare
from unclip.clip.resnet import ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import SMALLEST, CaptionCut, Tokenizer
from unclip.clip.vision import ViTConfig
from unclip.config import Config
from unclip.errors import OptionError
from unclip.identity import ClipIdentity, identify
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, TextFeatures

MAX_LOG_SCALE = 4.60517
"""ln 100 rounded down: exp of the float32 nearest to ln 100 exceeds 100."""

TOKENIZER = "tokenizer.json"


class ClipConfig(Config):
    """Towers, loss and pixel statistics of a CLIP."""

    image: Annotated[ViTConfig | ModifiedResNetConfig, Field(discriminator="kind")] | None
    """None for a CLIP that only reads captions."""
    text: TextConfig | None
    """None for a CLIP that only sees images."""
    embedding: int
    """Dimension d of the joint space."""
    loss: Literal["softmax", "sigmoid"] = "softmax"
    planned_batch: int = 32_768
    """Images a step sees over all processes; the sigmoid loss's bias starts at −ln of it."""
    caption_context: int = 256
    """Tokens the decoder's caption encoder reads; its ids come from this tokenizer too."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Of the channels of images in [0, 1]."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    fit: Fit = "crop"
    """What becomes of images that are not square."""
    normalise: bool = True
    """Whether embeddings are brought to unit length, as everything of our own expects; Karlo's
    are not."""
    thumbnail: int | None = Field(default=None, gt=0)
    """Side of the picture a head redraws from z_i in training (`Thumbnail`); not the paper's."""
    thumbnail_weight: float = Field(default=1.0, ge=0)
    """Of that head's loss beside the contrastive one."""
    identity: ClipIdentity | None = None
    """Written with the weights; None in checkpoints older than this record."""

    def image_tower(self) -> ViTConfig | ModifiedResNetConfig:
        """The image tower's config.

        Raises:
            CheckpointError: this CLIP has none.
        """
        if self.image is None:
            raise lacking("image")
        return self.image

    def text_tower(self) -> TextConfig:
        """The text tower's config.

        Raises:
            CheckpointError: this CLIP has none.
        """
        if self.text is None:
            raise lacking("text")
        return self.text

    def identified(self, weights: Iterable[tuple[str, Tensor]]) -> ClipIdentity:
        """The identity of a CLIP of this config with these weights, named as in a checkpoint.

        A name it was given is kept only by the weights it was given for.
        """
        known = self.identity or ClipIdentity()
        found = identify(weights, name=known.name, normalised=self.normalise)
        same = known.conflict(found) is None
        return found if same else found.model_copy(update={"name": ""})


class Clip(nn.Module):
    """Two towers, a tokenizer and the loss that joins them.

    Args:
        config: see `ClipConfig`.
        tokenizer: its vocabulary must fit into ``config.text.vocabulary``; None without a text
            tower.

    Raises:
        OptionError: if it does not fit.
    """

    name: ClassVar[str] = "clip"
    needs: ClassVar[frozenset[str]] = frozenset({"images", "captions"})

    def __init__(self, config: ClipConfig, tokenizer: Tokenizer | None) -> None:
        super().__init__()
        if config.text is not None:
            assert tokenizer is not None, "a text tower needs a tokenizer"
            if len(tokenizer) > config.text.vocabulary:
                raise OptionError(
                    f"the tokenizer has {len(tokenizer)} tokens, "
                    f"text.vocabulary has room for {config.text.vocabulary}"
                )
        sigmoid = config.loss == "sigmoid"
        self.config = config
        self._tokenizer = tokenizer
        self.network = ClipNetwork(
            config.image,
            config.text,
            config.embedding,
            logit_scale=math.log(10) if sigmoid else math.log(1 / 0.07),
            logit_bias=-math.log(config.planned_batch) if sigmoid else None,
            thumbnail=config.thumbnail,
        )

    @classmethod
    def from_config(cls, config: ClipConfig, folder: Path | None = None) -> "Clip":
        """Build an untrained CLIP with the tokenizer in ``folder``.

        Without a folder every byte is a token.

        Raises:
            CheckpointError: if the folder has no tokenizer.
        """
        if config.text is None:
            return cls(config, None)
        if folder is None:
            return cls(config, Tokenizer.train([], vocabulary=SMALLEST))
        return cls(config, Tokenizer.load(folder / TOKENIZER))

    def save_extras(self, folder: Path) -> None:
        """Write what a checkpoint holds beside config and weights: the tokenizer."""
        if self._tokenizer is not None:
            self._tokenizer.save(folder / TOKENIZER)

    @property
    def tokenizer(self) -> Tokenizer:
        """Captions to token ids.

        Raises:
            CheckpointError: this CLIP has no text tower.
        """
        self.config.text_tower()
        assert self._tokenizer is not None
        return self._tokenizer

    def identity(self) -> ClipIdentity:
        """Fingerprint the present weights, which may have been trained since they were loaded."""
        return self.config.identified(self.state_dict().items())

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Contrast the images of a batch with its captions, over all processes.

        ``randomness`` chooses the patches a ViT with ``keep`` below 1 sees.

        Returns:
            ``loss``, ``accuracy``, ``logit_scale`` (before the logarithm) and ``captions_cut``,
            the number of captions longer than the context.
        """
        assert batch.images is not None, "CLIP trains on images"
        assert batch.captions is not None, "CLIP trains on captions"
        self.clamp_logit_scale()
        ids, mask, cut = self.tokens(batch.captions)
        image = unit(self.network.image_tower()(self.pixels(batch.images), randomness))
        text = unit(self.network.text_tower()(ids, mask)[0])
        scale = self.network.logit_scale.exp()
        if self.network.logit_bias is None:
            losses = softmax_loss(image, text, scale)
        else:
            losses = sigmoid_loss(image, text, scale, self.network.logit_bias)
        if self.network.thumbnail is not None:
            redrawn = self.network.thumbnail.loss(image, batch.images.to(self._device))
            losses |= {
                "loss": losses["loss"] + self.config.thumbnail_weight * redrawn,
                "contrast": losses["loss"].detach(),
                "thumbnail": redrawn.detach(),
            }
        return losses | {"logit_scale": scale.detach(), "captions_cut": cut.sum().float()}

    @torch.no_grad()
    def clamp_logit_scale(self) -> None:
        """Keep the logit scale at 100 or less (§5.2)."""
        self.network.logit_scale.clamp_(max=MAX_LOG_SCALE)

    def drop_thumbnail(self) -> None:
        """Forget the head that redraws pictures: of no use after training."""
        self.network.thumbnail = None
        self.config = self.config.model_copy(update={"thumbnail": None})

    def after_step(self) -> None:
        """What the trainer calls after each optimiser step."""
        self.clamp_logit_scale()

    def tokens(
        self, captions: Sequence[str]
    ) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"], Bool[Tensor, " b"]]:
        """What the text tower reads: ids, a mask of the real ones, and which captions were cut.

        There is hardly more padding than the longest caption needs: causal attention never looks
        at it. Multiples of eight keep the shapes few.
        """
        ids, mask, cut = self.tokenizer.encode(captions, self.config.text_tower().context)
        longest = min(-(-int(mask.sum(dim=1).max()) // 8) * 8, ids.shape[1])
        return ids[:, :longest].to(self._device), mask[:, :longest].to(self._device), cut

    @torch.no_grad()
    def encode_image(
        self, images: Float[Tensor, "b 3 h w"], *, normalise: bool | None = None
    ) -> Float[Tensor, "b d"]:
        """Embed images in [-1, 1] of any size as z_i, in float32.

        Args:
            images: resized and cropped as the config says, unless they have the tower's size.
            normalise: to unit length; as the config says if not given.
        """
        raw = at_least_float32(self.network.image_tower()(self.pixels(images)))
        return unit(raw) if self._normalises(normalise) else raw

    @torch.no_grad()
    def encode_text(
        self, captions: Sequence[str], *, normalise: bool | None = None, warn: bool = True
    ) -> TextFeatures:
        """Embed captions, which may be empty.

        Args:
            captions: of any length; an encoder reads only as many tokens as its context has.
            normalise: the embeddings to unit length; as the config says if not given.
            warn: of captions that were cut, once for each encoder that cut one (`CaptionCut`).
        """
        config = self.config
        context = config.text_tower().context
        ids, mask, cut = self.tokenizer.encode(captions, context)
        caption, caption_mask, caption_cut = self.tokenizer.encode(captions, config.caption_context)
        if warn:
            _warn("CLIP's text tower", context, captions, cut)
            _warn("the decoder's caption encoder", config.caption_context, captions, caption_cut)
        mask = mask.to(self._device)
        raw, states = self.network.text_tower()(ids.to(self._device), mask)
        raw = at_least_float32(raw)
        return TextFeatures(
            embedding=unit(raw) if self._normalises(normalise) else raw,
            states=at_least_float32(states),
            mask=mask,
            caption=caption.to(self._device),
            caption_mask=caption_mask.to(self._device),
        )

    @torch.no_grad()
    def image_features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b features"]:
        """Image features before the projection, in float32: what a linear probe reads (§5.3)."""
        return at_least_float32(self.network.image_tower().features(self.pixels(images)))

    def pixels(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 size size"]:
        """Bring images in [-1, 1] to the image tower's size, statistics, device and dtype."""
        config = self.config
        images = prepare(
            images.to(self._device), config.image_tower().size, config.mean, config.std, config.fit
        )
        return images.to(self.network.logit_scale.dtype)

    def _normalises(self, asked: bool | None) -> bool:
        return self.config.normalise if asked is None else asked

    @property
    def _device(self) -> torch.device:
        return self.network.logit_scale.device


def unit(x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Scale to unit length, in float32."""
    return functional.normalize(at_least_float32(x), dim=-1)


def _warn(encoder: str, context: int, captions: Sequence[str], cut: Bool[Tensor, " b"]) -> None:
    if not cut.any():
        return
    first = captions[int(cut.nonzero()[0])]
    shown = first if len(first) <= 60 else first[:59] + "…"
    more = f" and {int(cut.sum()) - 1} more" if cut.sum() > 1 else ""
    warnings.warn(
        f"{encoder} reads {context} tokens and cut {shown!r}{more}: the rest has no effect on it",
        CaptionCut,
        stacklevel=3,
    )
