"""Zero-shot classification with prompt ensembling (CLIP, arXiv 2103.00020, §3.1; §5.3)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.clip.clip import Clip, unit
from unclip.errors import OptionError

SIMPLE = ("a photo of a {}.",)
"""One template; the paper gains 1.3 points over bare labels with it on ImageNet."""

ENSEMBLE = (
    "a photo of a {}.",
    "a bad photo of a {}.",
    "a close-up of the {}.",
    "a dark photo of the {}.",
    "a bright photo of a {}.",
    "a cropped photo of a {}.",
    "a photo of a large {}.",
    "a photo of a small {}.",
    "a photo of many {}.",
    "a drawing of a {}.",
    "a painting of the {}.",
    "a rendering of a {}.",
    "a cartoon {}.",
    "an icon of a {}.",
    "a sculpture of a {}.",
    "a toy {}.",
)
"""Different sizes, lights and media; their average is steadier than any one of them."""


@torch.no_grad()
def class_weights(
    clip: Clip, labels: Sequence[str], templates: Sequence[str] = SIMPLE
) -> Float[Tensor, "classes d"]:
    """One unit-norm vector for each label: templates embedded, normalised, averaged, renormalised.

    Args:
        clip: a trained CLIP.
        labels: names of the classes.
        templates: sentences with ``{}`` where the name goes.

    Raises:
        OptionError: there is no label or no template, or a template has no ``{}``.
    """
    if not labels or not templates:
        raise OptionError("zero-shot classification needs at least one label and one template")
    if wrong := [template for template in templates if "{}" not in template]:
        raise OptionError(f"template {wrong[0]!r} has no {{}} where the label goes")
    rows = []
    for label in labels:
        prompts = [template.replace("{}", label) for template in templates]
        rows.append(unit(clip.encode_text(prompts).embedding.mean(dim=0, keepdim=True)))
    return torch.cat(rows)


def zero_shot_logits(
    image_embedding: Float[Tensor, "b d"], weights: Float[Tensor, "classes d"]
) -> Float[Tensor, "b classes"]:
    """100 times the cosine of each image with each class; a softmax makes them probabilities."""
    return 100.0 * unit(image_embedding) @ weights.T
