"""A model made of several sources, written ``A+B``: the parts of the later ones replace others.

Kandinsky keeps prior and decoder in two repositories; ECLIPSE publishes a prior alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unclip.checkpoint import Card
from unclip.clip.clip import ClipConfig
from unclip.errors import CheckpointError
from unclip.options import GenerateOptions
from unclip.weights.family import Import, Part

SIBLINGS = {
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky-community/kandinsky-2-2-prior",
}
"""Sources that are no model without another, which is put before them."""


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
        CheckpointError: the parts are not of one CLIP, or two sources are the same single network.
    """
    if len(imports) == 1:
        return imports[0]
    parts: dict[str, Part] = {}
    defaults: dict[str, Any] = {}
    for one in imports:
        parts |= {part.name: part for part in one.parts}
        defaults |= one.defaults.model_dump(exclude_unset=True)
    _check_embeddings(parts)
    cards = [one.card for one in imports]
    return Import(
        parts=list(parts.values()),
        card=Card(
            name="+".join(card.name for card in cards),
            description="; ".join(_distinct(card.description for card in cards)),
            licence="; ".join(_distinct(card.licence for card in cards)),
            source="+".join(card.source for card in cards),
            revision="+".join(card.revision for card in cards).strip("+"),
            family="+".join(card.family for card in cards),
            reference="; ".join(_distinct(card.reference for card in cards)),
        ),
        defaults=GenerateOptions.parse(defaults, source="sampling defaults"),
    )


def _check_embeddings(parts: dict[str, Part]) -> None:
    clip = parts["clip"].config if "clip" in parts else None
    if not isinstance(clip, ClipConfig):
        return
    for name in ("prior", "decoder"):
        if name not in parts:
            continue
        config: Any = parts[name].config
        size = config.network.embedding
        if size != clip.embedding:
            raise CheckpointError(
                f"the {name} reads embeddings of size {size}, the CLIP beside it makes "
                f"{clip.embedding}: join sources of one CLIP"
            )
        if config.clip and (conflict := config.clip.conflict(clip.identity)):
            raise CheckpointError(
                f"the {name} was trained on another CLIP than the one beside it ({conflict}): join "
                "sources of one CLIP"
            )


def _distinct(texts: Any) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
