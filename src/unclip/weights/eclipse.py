"""ECLIPSE's priors of one pass (CVPR 2024), for Karlo's and for Kandinsky 2.2's decoder.

A repository holds the prior alone; it becomes a model joined with the rest: ``karlo+eclipse``.
"""

from collections.abc import Iterator

from torch import Tensor

from unclip.identity import ClipIdentity
from unclip.options import GenerateOptions
from unclip.prior.one_pass import OnePassPriorConfig
from unclip.prior.options import PriorSampling
from unclip.weights.card import card_of
from unclip.weights.family import Family, Import, Part, Reference
from unclip.weights.prior_transformer import diffusers_prior, diffusers_prior_config
from unclip.weights.rename import Rule, renamed
from unclip.weights.source import Source, reading

CONFIG = "config.json"
POSITIONS = 3
"""Beside the text: text embedding, noise, learned query. A diffusion prior has the time, too."""
CLIPS = {768: "OpenAI ViT-L/14", 1280: "LAION ViT-bigG/14"}
"""Which CLIP a prior was trained on, by the size of its embeddings: nothing else tells it."""

ECLIPSE = [
    # The class it descends from has statistics. They are zero, and this prior never reads them.
    Rule("clip_mean"),
    Rule("clip_std"),
    *diffusers_prior(),
]
"""ECLIPSE's PriorTransformer -> `OnePassPrior`."""


def recognises(source: Source) -> bool:
    """Whether it is a PriorTransformer without a position for the time."""
    if not source.has(CONFIG) or not source.weights():
        return False
    values = source.json(CONFIG)
    named = values.get("_class_name") == "PriorTransformer"
    return named and values.get("additional_embeddings") == POSITIONS


def plan(source: Source, _: Reference) -> Import:
    """The prior.

    Raises:
        CheckpointError: it has parts that ours does not.
    """
    with reading(f"{source.name}/{CONFIG}") as where:
        # The shared reader knows PriorTransformers with a timestep.
        values = source.json(CONFIG) | {"additional_embeddings": POSITIONS + 1}
        network = diffusers_prior_config(values, where)
    config = OnePassPriorConfig(
        network=network.updated({"timestep": False, "unconditional": "none"}, source=where),
        scaling="none",
        renormalise=False,
        clip=ClipIdentity(name=CLIPS.get(network.embedding, ""), normalised=False),
    )
    weights = source.tensors()

    def tensors() -> Iterator[tuple[str, Tensor]]:
        return renamed(weights, ECLIPSE, name=source.name)

    card = card_of(source, "eclipse", description="ECLIPSE: a prior of one pass (CVPR 2024)")
    defaults = GenerateOptions(candidates=1, prior=PriorSampling(steps=1, guidance=1))
    return Import([Part("prior", config, tensors)], card, defaults)


FAMILY = Family("eclipse", recognises, plan)
