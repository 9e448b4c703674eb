"""The card of an imported checkpoint: where it comes from and what its licence is."""

from unclip.checkpoint import Card
from unclip.weights.source import Source


def card_of(
    source: Source, family: str, *, description: str = "", licence: str = "", reference: str = ""
) -> Card:
    """A card for what is imported from ``source``.

    Args:
        source: where it comes from.
        family: which kind of checkpoint it is.
        description: one line on what it is.
        licence: what its authors published it under; the source's own model card goes first.
        reference: whose behaviour is followed, where there is a choice.
    """
    return Card(
        name=source.origin,
        description=description,
        licence=source.licence or licence or "unknown",
        source=source.origin,
        revision=source.revision,
        family=family,
        reference=reference,
    )
