"""A frozen CLIP that fills in what a stage is conditioned on: text features and z_i."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from unclip.clip.clip import Clip
from unclip.errors import TrainingError
from unclip.identity import ClipIdentity
from unclip.types import Batch


class FrozenClip:
    """Computes the missing conditions of a batch, without gradients.

    Args:
        clip: the trained CLIP, already placed on its device and in its dtype. Its parameters
            stop asking for gradients.
        needs: names of the `Batch` fields the trained stage reads (``stage.needs``). Fields it
            does not read, or which the batch already carries (cached embeddings), cost nothing.
        size: what images are shrunk to once they are embedded. CLIP must see them at its own
            size: z_i of an enlarged thumbnail is not z_i of the picture.
    """

    def __init__(self, clip: Clip, needs: frozenset[str], size: int | None = None) -> None:
        self.clip = clip.requires_grad_(False).eval()
        self.needs = needs
        self.size = size
        self.identity = clip.identity()
        self._warn = True

    # inference_mode would not do: its tensors may not take part in the stage's backward pass.
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with ``text`` and ``image_embedding`` where needed."""
        text, embedding = batch.text, batch.image_embedding
        if "text" in self.needs and text is None:
            if batch.captions is None:
                raise TrainingError(_lacks(batch, "captions"))
            # A caption that is cut is warned about in the first batch; later ones are too many.
            text = self.clip.encode_text(batch.captions, warn=self._warn).trimmed()
            self._warn = False
        if "image_embedding" in self.needs and embedding is None:
            if batch.images is None:
                raise TrainingError(_lacks(batch, "images"))
            embedding = self.clip.encode_image(batch.images)
        return replace(batch, images=self._shrunk(batch), text=text, image_embedding=embedding)

    def _shrunk(self, batch: Batch) -> Float[Tensor, "b 3 h w"] | None:
        images = batch.images
        if images is None or self.size is None or images.shape[-1] == self.size:
            return images
        size = (self.size, self.size)
        return interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)


def record_clip(stage: Any, identity: ClipIdentity) -> None:
    """Write into the config of ``stage`` which CLIP it is trained on.

    Raises:
        TrainingError: it was trained on another one until now.
    """
    known = stage.config.clip
    if known and (conflict := known.conflict(identity)):
        raise TrainingError(
            f"the {stage.name} was trained on another CLIP ({conflict}), whose embeddings mean "
            "something else; give the one it was trained on, or train from random weights"
        )
    if known and not identity.name:
        identity = identity.model_copy(update={"name": known.name})
    stage.config = stage.config.model_copy(update={"clip": identity})


def _lacks(batch: Batch, field: str) -> str:
    return f"the data have no {field} (sample {batch.keys[0]!r}), which this stage is trained on"
