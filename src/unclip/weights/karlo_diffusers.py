"""Karlo in diffusers' folders: the text-to-image pipeline, and the one that varies images."""

from unclip.errors import CheckpointError
from unclip.weights.adm import diffusers_unet, diffusers_unet_config, plain
from unclip.weights.clip import transformers_part
from unclip.weights.family import Family, Import, Part, Reference
from unclip.weights.karlo import (
    Empty,
    Pairs,
    clip_changes,
    decoder_part,
    empty_prompt,
    imported,
    prior_part,
    upsampler_part,
)
from unclip.weights.prior_transformer import diffusers_prior, diffusers_prior_config
from unclip.weights.rename import Rule, renamed
from unclip.weights.source import Source, reading

INDEX = "model_index.json"
PIPELINES = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")

TEXT_PROJ = [
    *plain(
        {
            "encoder_hidden_states_proj": "network.text.to_tokens",
            "text_encoder_hidden_states_norm": "network.text.norm",
            "embedding_proj": "network.text.to_time",
            "clip_image_embeddings_project_to_time_embeddings": "network.image.to_time",
            "clip_extra_context_tokens_proj": "network.image.to_tokens",
        }
    ),
    Rule("learned_classifier_free_guidance_embeddings", "network.image.null"),
]
"""From an UnCLIPTextProjModel to the conditioning of a `Decoder`."""


def recognises(source: Source) -> bool:
    """Whether it is one of the two pipelines. The libraries it declares do not matter."""
    return source.has(INDEX) and source.json(INDEX).get("_class_name") in PIPELINES


def plan(source: Source, reference: Reference) -> Import:
    """All parts; without a prior a model that varies images.

    Raises:
        CheckpointError: a file is missing or of another structure.
    """
    image = "image_encoder" if source.has("image_encoder/config.json") else None
    changes = clip_changes(reference)
    clip = transformers_part(source, text="text_encoder", image=image, changes=changes)
    empty = empty_prompt(clip)
    decoder, size = _decoder(source, reference, empty)
    parts = [clip, decoder, _upsampler(source, reference, size)]
    if source.has("prior/config.json"):
        parts.insert(1, _prior(source, reference, empty))
    return imported(source, FAMILY.name, parts, reference)


FAMILY = Family("karlo-diffusers", recognises, plan)


def _prior(source: Source, reference: Reference, empty: Empty) -> Part:
    with reading(f"{source.name}/prior/config.json") as where:
        network = diffusers_prior_config(source.json("prior/config.json"), where)
    weights = source.tensors(folder="prior")
    return prior_part(
        network, reference, lambda: renamed(weights, diffusers_prior(), name="prior"), empty
    )


def _decoder(source: Source, reference: Reference, empty: Empty) -> tuple[Part, int]:
    with reading(f"{source.name}/decoder/config.json") as where:
        values = source.json("decoder/config.json")
        unet, size = diffusers_unet_config(values, where), values["sample_size"]
    with reading(f"{source.name}/text_proj/config.json"):
        projection = source.json("text_proj/config.json")
        tokens = projection.get("clip_extra_context_tokens", 4)
        embedding = projection.get("clip_embeddings_dim", 768)
    weights, projections = source.tensors(folder="decoder"), source.tensors(folder="text_proj")

    def tensors() -> Pairs:
        yield from renamed(weights, diffusers_unet(unet, "network.unet."), name="decoder")
        yield from renamed(projections, TEXT_PROJ, name="text_proj")

    part = decoder_part(
        unet, reference, tensors, empty, size=size, embedding=embedding, tokens=tokens
    )
    return part, size


def _upsampler(source: Source, reference: Reference, low: int) -> Part:
    folders = {"super_res_first": "network.first.", "super_res_last": "network.last."}
    shapes = []
    for folder in folders:
        with reading(f"{source.name}/{folder}/config.json") as where:
            values = source.json(f"{folder}/config.json")
            shapes.append((diffusers_unet_config(values, where), values["sample_size"]))
    (unet, high), last = shapes
    if last != (unet, high):
        raise CheckpointError(f"{source.name}: super_res_first and super_res_last differ in shape")
    weights = {folder: source.tensors(folder=folder) for folder in folders}

    def tensors() -> Pairs:
        for folder, prefix in folders.items():
            yield from renamed(weights[folder], diffusers_unet(unet, prefix), name=folder)

    return upsampler_part(unet, reference, tensors, low=low, high=high)
