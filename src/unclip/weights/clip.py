"""Published CLIPs: OpenAI's archives, open_clip and transformers, whole or one tower."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.clip.architectures import ARCHITECTURES
from unclip.clip.clip import TOKENIZER, ClipConfig
from unclip.errors import CheckpointError
from unclip.identity import ClipIdentity
from unclip.weights import clip_names as names
from unclip.weights.card import card_of
from unclip.weights.clip_said import both, said_by_open_clip, said_by_transformers
from unclip.weights.clip_shapes import Facts, Guessed, Shapes, config_of
from unclip.weights.clip_tokenizer import tokenizer_of
from unclip.weights.family import Family, Import, Part, Reference
from unclip.weights.rename import Rule, renamed
from unclip.weights.source import Source
from unclip.weights.tensors import Tensors

MARKS = ("input_resolution", "context_length", "vocab_size")
"""What only OpenAI's own files hold."""
LOG_SCALE = 4.6052
"""ln 100, where every published CLIP's scale ended; one tower alone stores none."""


def openai_part(source: Source, file: str = "", changes: Mapping[str, Any] | None = None) -> Part:
    """The CLIP in one of OpenAI's archives, as a part of a checkpoint.

    Args:
        source: where it lies.
        file: its name in the source; the source's only weights if not given.
        changes: fields of `ClipConfig` that differ from what the file says, such as ``fit``.

    Raises:
        CheckpointError: it is damaged or of another structure.
    """
    tensors = source.tensors(*([file] if file else []))
    said = Facts(text_activation="quick_gelu", image_activation="quick_gelu", head_width=64)
    part = _part(source, tensors, "", said, changes)
    assert isinstance(part.config, ClipConfig)
    identity = ClipIdentity(name=_openai_name(part.config), normalised=part.config.normalise)
    return replace(part, config=part.config.model_copy(update={"identity": identity}))


def transformers_part(
    source: Source,
    *,
    text: str | None,
    image: str | None,
    tokenizer: str = "tokenizer",
    processor: str = "feature_extractor",
    changes: Mapping[str, Any] | None = None,
) -> Part:
    """The CLIP whose towers lie in folders of their own, as in a diffusers pipeline.

    Args:
        source: where they lie.
        text: folder of the text tower; None if there is none.
        image: folder of the image tower; None if there is none.
        tokenizer: folder of the tokenizer.
        processor: folder of the image preprocessor's config, if there is one.
        changes: fields of `ClipConfig` that differ from what the files say, such as ``fit``.

    Raises:
        CheckpointError: they are damaged or of another structure.
    """
    tensors, said = Tensors({}), None
    for folder in (text, image):
        if folder is not None:
            tensors |= names.canonical_transformers(source.tensors(folder=folder))
            tower = said_by_transformers(source, folder, processor)
            said = both(said, tower) if said else tower
    return _part(source, tensors, tokenizer, said, changes)


def _part(
    source: Source,
    tensors: Tensors,
    tokenizer: str,
    said: Facts | None,
    changes: Mapping[str, Any] | None = None,
) -> Part:
    tensors, rules = _table(source.name, tensors)
    meta = renamed(tensors.shapes_only(), rules, name=source.name)
    shapes: dict[str, tuple[int, ...]] = {key: tuple(tensor.shape) for key, tensor in meta}
    filled = _filled(shapes, source.name)
    shapes |= {key: tuple(tensor.shape) for key, tensor in filled.items()}
    config = config_of(shapes, said or Facts(), name=source.name)
    config = config.updated(changes or {}, source=source.name)

    def weights() -> Iterator[tuple[str, Tensor]]:
        yield from renamed(tensors, rules, name=source.name)
        yield from filled.items()

    def save(folder: Path) -> None:
        if config.text is not None:
            tokenizer_of(source, tokenizer, config.text.vocabulary).save(folder / TOKENIZER)

    return Part("clip", config, weights, save_extras=save)


def _table(name: str, tensors: Tensors) -> tuple[Tensors, list[Rule]]:
    """The tensors under canonical names, and the rules for these."""
    if names.is_transformers(tensors):
        rules = names.TRANSFORMERS_TEXT + names.TRANSFORMERS_IMAGE + names.TRANSFORMERS_SCALE
        return names.canonical_transformers(tensors), rules
    if any(key.startswith("visual.trunk.") for key in tensors):
        raise CheckpointError(f"{name}: its image tower is one of timm's, which are not ours")
    if not names.is_openai(tensors):
        raise CheckpointError(f"{name}: its text tower is not that of CLIP")
    resnet = "visual.layer1.0.conv1.weight" in tensors
    image = names.OPENAI_RESNET if resnet else names.OPENAI_VIT
    return names.canonical_openai(tensors), names.OPENAI_TEXT + image


def _filled(shapes: Shapes, name: str) -> dict[str, Tensor]:
    """What one tower alone leaves out: the scale, and where it ends early the projection."""
    filled = {}
    if "network.logit_scale" not in shapes:
        filled["network.logit_scale"] = torch.tensor(LOG_SCALE)
    towers = {names.TEXT: f"{names.TEXT}norm.weight", names.IMAGE: f"{names.IMAGE}norm_out.weight"}
    for tower, norm in towers.items():
        if norm in shapes and f"{tower}projection.weight" not in shapes:
            filled[f"{tower}projection.weight"] = torch.eye(shapes[norm][0])
            warnings.warn(
                f"{name} ends before CLIP's projection: its embeddings are pooled states, which "
                "cannot be compared with those of the other tower",
                Guessed,
                stacklevel=4,
            )
    return filled


def _openai_name(config: ClipConfig) -> str:
    for name, known in ARCHITECTURES.items():
        if (config.image, config.text, config.embedding) == (
            known.image,
            known.text,
            known.embedding,
        ):
            return f"OpenAI {name}"
    return ""


def _tensors(source: Source) -> Tensors:
    """The weights at the top of a source, if it has some."""
    return source.tensors() if source.weights() else Tensors({})


def _is_openai(source: Source) -> bool:
    tensors = _tensors(source)
    return names.is_openai(tensors) and any(mark in tensors for mark in MARKS)


def _is_open_clip(source: Source) -> bool:
    tensors = _tensors(source)
    trained = any(name.startswith("visual.") for name in tensors)
    return names.is_openai(tensors) or (trained and source.has("open_clip_config.json"))


def _is_transformers(source: Source) -> bool:
    return names.is_transformers(_tensors(source))


def _openai(source: Source, _: Reference) -> Import:
    part = openai_part(source)
    assert isinstance(part.config, ClipConfig)
    known = part.config.identity
    text = (
        f"CLIP by OpenAI: {known.name.removeprefix('OpenAI ')}" if known and known.name else "CLIP"
    )
    return Import([part], card_of(source, "clip-openai", description=text, licence="MIT"))


def _open_clip(source: Source, _: Reference) -> Import:
    said = said_by_open_clip(source)
    part = _part(source, source.tensors(), "", said)
    return Import([part], card_of(source, "clip-open_clip", description="CLIP by open_clip"))


def _transformers(source: Source, _: Reference) -> Import:
    said = said_by_transformers(source) or Facts(usual_activation="quick_gelu")
    part = _part(source, source.tensors(), "", said)
    return Import([part], card_of(source, "clip-transformers", description="CLIP by transformers"))


FAMILIES = (
    Family("clip-openai", _is_openai, _openai),
    Family("clip-open_clip", _is_open_clip, _open_clip),
    Family("clip-transformers", _is_transformers, _transformers),
)
