"""Which family a source is of. A new family is one module and one line here."""

from unclip.errors import CheckpointError
from unclip.weights import clip, eclipse, kandinsky, karlo_authors, karlo_diffusers, own, refused
from unclip.weights.family import Family
from unclip.weights.source import Source

FAMILIES: tuple[Family, ...] = (
    karlo_authors.FAMILY,
    karlo_diffusers.FAMILY,
    *kandinsky.FAMILIES,
    eclipse.FAMILY,
    *clip.FAMILIES,
)
"""Asked in this order: whole pipelines before the single networks they contain."""


def detect(source: Source) -> Family:
    """The family of a source.

    Raises:
        CheckpointError: it is of none, or of one that cannot be imported.
    """
    for family in (own.FAMILY, *refused.FAMILIES, *FAMILIES, *refused.INCOMPLETE):
        if family.recognises(source):
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise CheckpointError(
        f"{source.name} is no model folder, which has an unclip.json, nor a checkpoint that can be "
        f"imported; known: {known}"
    )
