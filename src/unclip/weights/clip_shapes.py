"""CLIP's config from the shapes of its weights, and from what its authors say of the rest.

Shapes do not tell the GELU variant, the number of heads and the preprocessing.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unclip.clip.clip import ClipConfig
from unclip.errors import CheckpointError, OptionError
from unclip.weights.clip_names import IMAGE, TEXT

HEAD_WIDTHS = {1280: 80, 1408: 88, 1664: 104}
"""Of the published image towers of these widths (H, g, bigG); all others have 64."""

Shapes = Mapping[str, tuple[int, ...]]


class Guessed(UserWarning):
    """Something of an imported checkpoint is not written anywhere and was taken from habit."""


@dataclass(frozen=True)
class Facts:
    """What a checkpoint says of itself beside its weights; None where it is silent."""

    text_activation: str | None = None
    image_activation: str | None = None
    text_heads: int | None = None
    image_heads: int | None = None
    head_width: int | None = None
    """Channels of a head in the image tower, where that is said instead."""
    usual_activation: str = "gelu"
    """Guessed with a warning where nothing is said."""
    pixels: Mapping[str, Any] = field(default_factory=dict)
    """``mean``, ``std`` and ``fit``, as far as they are given."""
    stated: Mapping[str, int] = field(default_factory=dict)
    """Sizes the config states, by their path in `ClipConfig` (``image.width``): the weights
    must agree."""


def config_of(shapes: Shapes, facts: Facts, *, name: str) -> ClipConfig:
    """The config of a CLIP whose weights, named as ours, have these shapes.

    Raises:
        CheckpointError: shapes contradict each other or what the source's own config states.
    """
    guesses: list[str] = []
    try:
        values: dict[str, Any] = {
            "image": _image(shapes, facts, guesses) if _has(shapes, IMAGE) else None,
            "text": _text(shapes, facts, guesses) if _has(shapes, TEXT) else None,
            **facts.pixels,
        }
        tower = TEXT if values["text"] else IMAGE
        values["embedding"] = shapes[f"{tower}{_last(shapes, tower)}.weight"][0]
    except (KeyError, IndexError) as error:
        raise CheckpointError(f"{name}: its weights are incomplete, {error} is missing") from None
    values["loss"] = "sigmoid" if "network.logit_bias" in shapes else "softmax"
    for path, stated in facts.stated.items():
        part, _, leaf = path.rpartition(".")
        found = (values[part] or {}).get(leaf) if part else values[leaf]
        if found is not None and found != stated:
            raise CheckpointError(
                f"{name}: its config says {path} {stated}, its weights {found}; "
                "config and weights are not of one model"
            )
    if guesses:
        warnings.warn(
            f"{name} does not say everything: guessed {'; '.join(guesses)}. "
            "If results look wrong, bring the config.json that belongs to the weights",
            Guessed,
            stacklevel=2,
        )
    try:
        return ClipConfig.parse(values, source=name)
    except OptionError as error:
        raise CheckpointError(str(error)) from None


def _has(shapes: Shapes, tower: str) -> bool:
    return any(name.startswith(tower) for name in shapes)


def _last(shapes: Shapes, tower: str) -> str:
    return "pool.projection" if f"{tower}pool.positions" in shapes else "projection"


def _text(shapes: Shapes, facts: Facts, guesses: list[str]) -> dict[str, Any]:
    vocabulary, width = shapes[f"{TEXT}tokens.weight"]
    return {
        "context": shapes[f"{TEXT}positions"][0],
        "vocabulary": vocabulary,
        "heads": facts.text_heads or max(1, width // 64),
        "activation": _activation(facts.text_activation, facts, "text", guesses),
        **_transformer(shapes, TEXT, width),
    }


def _image(shapes: Shapes, facts: Facts, guesses: list[str]) -> dict[str, Any]:
    if f"{IMAGE}pool.positions" in shapes:
        width = shapes[f"{IMAGE}stem.6.weight"][0]
        return {
            "kind": "resnet",
            "size": 32 * _side(shapes[f"{IMAGE}pool.positions"][0]),
            "layers": [_count(shapes, f"{IMAGE}stages.{stage}.") for stage in range(4)],
            "width": width,
            "heads": max(1, 32 * width // (facts.head_width or 64)),
        }
    width, _, patch, _ = shapes[f"{IMAGE}patches.weight"]
    heads = facts.image_heads
    if heads is None and facts.head_width:
        heads = max(1, width // facts.head_width)
    if heads is None:
        head = HEAD_WIDTHS.get(width, 64)
        heads = max(1, width // head)
        guesses.append(f"heads of {head} channels in the image tower")
    return {
        "kind": "vit",
        "size": patch * _side(shapes[f"{IMAGE}positions"][0]),
        "patch": patch,
        "heads": heads,
        "activation": _activation(facts.image_activation, facts, "image", guesses),
        **_transformer(shapes, IMAGE, width),
    }


def _activation(said: str | None, facts: Facts, tower: str, guesses: list[str]) -> str:
    if said is None:
        guesses.append(f"{facts.usual_activation} in the {tower} tower")
    return said or facts.usual_activation


def _transformer(shapes: Shapes, tower: str, width: int) -> dict[str, Any]:
    hidden = shapes[f"{tower}transformer.blocks.0.mlp.0.weight"][0]
    ratio = hidden / width
    while int(width * ratio) < hidden:  # the quotient may be rounded down
        ratio = math.nextafter(ratio, math.inf)
    depth = _count(shapes, f"{tower}transformer.blocks.")
    return {"width": width, "depth": depth, "mlp_ratio": ratio}


def _count(shapes: Shapes, prefix: str) -> int:
    numbers = {name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)}
    return len(numbers)


def _side(positions: int) -> int:
    return math.isqrt(positions - 1)
