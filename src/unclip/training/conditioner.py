"""A frozen CLIP that fills in what a stage is conditioned on: text features and z_i."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.errors import TrainingError
from unclip.types import Batch, TextFeatures


@runtime_checkable
class Encoder(Protocol):
    """The side of CLIP that conditioning needs."""

    def encode_text(self, captions: tuple[str, ...]) -> TextFeatures:
        """Text features of captions."""

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Image embeddings z_i."""


class FrozenClip:
    """Computes the missing conditions of a batch, without gradients.

    Args:
        clip: the trained CLIP, already placed on its device and in its dtype. Its parameters
            stop asking for gradients.
        needs: names of the `Batch` fields the trained stage reads (``stage.needs``). Fields it
            does not read, or which the batch already carries (cached embeddings), cost nothing.
    """

    def __init__(self, clip: Encoder, needs: frozenset[str]) -> None:
        self.clip = clip
        self.needs = needs
        if isinstance(clip, nn.Module):
            clip.requires_grad_(False).eval()

    # inference_mode would not do: its tensors may not take part in the stage's backward pass.
    @torch.no_grad()
    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with ``text`` and ``image_embedding`` where needed."""
        text, embedding = batch.text, batch.image_embedding
        if "text" in self.needs and text is None:
            if batch.captions is None:
                raise TrainingError(_lacks(batch, "captions"))
            text = self.clip.encode_text(batch.captions)
        if "image_embedding" in self.needs and embedding is None:
            if batch.images is None:
                raise TrainingError(_lacks(batch, "images"))
            embedding = self.clip.encode_image(batch.images).float()
        return replace(batch, text=text, image_embedding=embedding)


def _lacks(batch: Batch, field: str) -> str:
    return f"the data have no {field} (sample {batch.keys[0]!r}), which this stage is trained on"
