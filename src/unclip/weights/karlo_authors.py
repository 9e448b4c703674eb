"""Karlo in its authors' files: three .ckpt, CLIP's TorchScript archive and its statistics."""

from fnmatch import fnmatch

from unclip.errors import CheckpointError
from unclip.nn.unet import UNetConfig
from unclip.weights.adm import authors_unet, authors_unet_config, plain
from unclip.weights.clip import openai_part
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
from unclip.weights.prior_transformer import authors_prior, authors_prior_config
from unclip.weights.rename import Rule, renamed
from unclip.weights.source import Source
from unclip.weights.tensors import Tensors

CLIP, STATISTICS = "ViT-L-14.pt", "ViT-L-14_stats.th"
PRIOR, DECODER, UPSAMPLER = "prior-ckpt*.ckpt", "decoder-ckpt*.ckpt", "improved-sr-ckpt*.ckpt"
SIZE, ENLARGED = 64, 256
"""Sides of the images, which the weights do not tell."""

_CONDITIONING = {
    "text_seq_proj.0": "network.text.to_tokens",
    "text_seq_proj.1": "network.text.norm",
    "text_feat_proj": "network.text.to_time",
    "clip_emb": "network.image.to_time",
    "clip_tok_proj": "network.image.to_tokens",
}


def recognises(source: Source) -> bool:
    """Whether the source holds Karlo's decoder and upsampler by their published names."""
    return all(any(fnmatch(file, name) for file in source.files) for name in (DECODER, UPSAMPLER))


def plan(source: Source, reference: Reference) -> Import:
    """All parts; without the prior's two files a model that varies images.

    Raises:
        CheckpointError: a file is missing or of another structure.
    """
    clip = openai_part(source, CLIP, clip_changes(reference))
    empty = empty_prompt(clip)
    parts = [clip, _decoder(source, reference, empty), _upsampler(source, reference)]
    if any(fnmatch(file, PRIOR) for file in source.files):
        parts.insert(1, _prior(source, reference, empty))
    return imported(source, FAMILY.name, parts, reference)


FAMILY = Family("karlo-authors", recognises, plan)


def decoder_rules(unet: UNetConfig) -> list[Rule]:
    """From the decoder's file to a `Decoder`, whose U-Net has this shape."""
    return [
        *plain(_CONDITIONING, "model."),
        Rule("model.cf_param", "network.image.null"),
        *authors_unet(unet, "model.", "network.unet."),
    ]


def upsampler_rules(unet: UNetConfig) -> list[Rule]:
    """From the file of both upsamplers to an `Upsampler`, whose U-Nets have this shape."""
    return [
        *authors_unet(unet, "model_first_steps.", "network.first."),
        *authors_unet(unet, "model_last_step.", "network.last."),
    ]


def _prior(source: Source, reference: Reference, empty: Empty) -> Part:
    file, weights = _open(source, PRIOR)
    network = authors_prior_config(weights, file, "model.")
    statistics = source.tensors(STATISTICS)
    for name in ("0", "1"):
        if name not in statistics or statistics.shape(name) != (network.embedding,):
            raise CheckpointError(
                f"{source.name}: {STATISTICS} does not hold mean and deviation of "
                f"{network.embedding} dimensions"
            )

    def tensors() -> Pairs:
        yield from renamed(weights, authors_prior(network, "model."), name=file)
        yield "space.mean", statistics["0"]
        yield "space.std", statistics["1"]

    return prior_part(network, reference, tensors, empty)


def _decoder(source: Source, reference: Reference, empty: Empty) -> Part:
    file, weights = _open(source, DECODER)
    unet = authors_unet_config(weights.without_prefix("model."), file)
    rules = decoder_rules(unet)
    if unet.context_width is None or "model.clip_tok_proj.weight" not in weights:
        raise CheckpointError(f"{file}: this U-Net is not conditioned on CLIP as Karlo's decoder")
    outputs, embedding = weights.shape("model.clip_tok_proj.weight")
    return decoder_part(
        unet,
        reference,
        lambda: renamed(weights, rules, name=file),
        empty,
        size=SIZE,
        embedding=embedding,
        tokens=outputs // unet.context_width,
    )


def _upsampler(source: Source, reference: Reference) -> Part:
    file, weights = _open(source, UPSAMPLER)
    unet = authors_unet_config(weights.without_prefix("model_first_steps."), file)
    rules = upsampler_rules(unet)
    return upsampler_part(
        unet, reference, lambda: renamed(weights, rules, name=file), low=SIZE, high=ENLARGED
    )


def _open(source: Source, pattern: str) -> tuple[str, Tensors]:
    file = next(file for file in source.files if fnmatch(file, pattern))
    return file, source.tensors(file)
