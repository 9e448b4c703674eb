"""A model made of several sources, written ``A+B``: the parts of the later ones replace others.

Kandinsky keeps prior and decoder in two repositories; ECLIPSE publishes a prior alone.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from unclip.checkpoint import Card
from unclip.identity import Space, check_one_space
from unclip.options import GenerateOptions
from unclip.weights.family import Import, Part

SIBLINGS = {
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky-community/kandinsky-2-2-prior",
}
"""Sources that are no model without another, which is put before them."""
SAMPLING = {"prior": ("candidates", "prior"), "decoder": ("decoder",)}
"""The sampling defaults that belong to a stage and leave with it; an upsampler's go by its size."""


def names_of(source: str) -> list[str]:
    """The sources in ``A+B``, and what one of them needs before it. A path that exists is one."""
    if Path(source).exists():
        return [source]
    names = [name.strip() for name in source.split("+")]
    for name, sibling in SIBLINGS.items():
        if name in names and sibling not in names:
            names.insert(0, sibling)
    return names


def joined(imports: Sequence[Import]) -> Import:
    """One model of all; of parts of one name, and of their sampling defaults, the last.

    Raises:
        CheckpointError: the parts are not of one CLIP.
    """
    if len(imports) == 1:
        return imports[0]
    cards = [one.card for one in imports]
    name = "+".join(card.name for card in cards)
    parts: dict[str, Part] = {}
    defaults = GenerateOptions()
    for one in imports:
        parts |= {part.name: part for part in one.parts}
        defaults = resampled(defaults, one.defaults, [part.name for part in one.parts])
    _check_embeddings(parts, name)
    return Import(
        parts=list(parts.values()),
        card=Card(
            name=name,
            description="; ".join(_distinct(card.description for card in cards)),
            licence="; ".join(_distinct(card.licence for card in cards)),
            source="+".join(card.source for card in cards),
            revision="+".join(card.revision for card in cards).strip("+"),
            family="+".join(card.family for card in cards),
            reference="; ".join(_distinct(card.reference for card in cards)),
        ),
        defaults=defaults,
    )


def sampling_of(stage: str, defaults: GenerateOptions) -> GenerateOptions:
    """What ``defaults`` say of one stage, such as ``prior`` or ``upsampler-256``."""
    said: dict[str, Any] = defaults.model_dump(exclude_unset=True)
    kept = {field: said[field] for field in SAMPLING.get(stage, ()) if field in said}
    size = stage.removeprefix("upsampler-")
    if size in said.get("upsampler", {}):
        kept["upsampler"] = {size: said["upsampler"][size]}
    return GenerateOptions.parse(kept, source="sampling defaults")


def resampled(
    defaults: GenerateOptions, new: GenerateOptions, stages: Iterable[str]
) -> GenerateOptions:
    """``defaults`` where these stages are replaced: sampled as ``new`` says, or by no default.

    What ``new`` says of other stages is left out, and what it says of no stage is taken over.
    """
    held = set(stages)
    fields = {field for stage in held for field in SAMPLING.get(stage, ())}
    others = {field for owned in SAMPLING.values() for field in owned} - fields
    sizes = {stage.removeprefix("upsampler-") for stage in held}
    before = defaults.model_dump(exclude_unset=True)
    after: dict[str, Any] = new.model_dump(exclude_unset=True)
    steps = {k: how for k, how in before.pop("upsampler", {}).items() if k not in sizes}
    steps |= {k: how for k, how in after.pop("upsampler", {}).items() if k in sizes}
    values = {field: value for field, value in before.items() if field not in fields}
    values |= {field: value for field, value in after.items() if field not in others}
    values |= {"upsampler": steps} if steps else {}
    return GenerateOptions.parse(values, source="sampling defaults")


def _check_embeddings(parts: dict[str, Part], where: str) -> None:
    configs: dict[str, Any] = {name: part.config for name, part in parts.items()}
    clip = configs.get("clip")
    readers = {name: configs[name] for name in ("prior", "decoder") if name in configs}
    check_one_space(
        where,
        Space(clip.embedding, clip.identity) if clip else None,
        {name: Space(read.network.embedding, read.clip) for name, read in readers.items()},
    )


def _distinct(texts: Any) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
