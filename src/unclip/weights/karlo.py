"""Karlo v1.0.alpha (Kakao Brain, 2022): what both layouts of its weights have in common.

A causal prior, a 64 px decoder and a pair of U-Nets to 256 px, on OpenAI's CLIP ViT-L/14 without
normalisation. Where the authors' code and diffusers' port differ, a reference chooses.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from unclip.clip.clip import Clip, ClipConfig
from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.process import DiffusionConfig
from unclip.identity import ClipIdentity
from unclip.nn.unet import UNetConfig
from unclip.options import GenerateOptions
from unclip.prior.diffusion_prior import DiffusionPriorConfig
from unclip.prior.network import PriorNetworkConfig
from unclip.types import TextFeatures
from unclip.upsampler.upsampler import UpsamplerConfig
from unclip.weights.card import card_of
from unclip.weights.family import Import, Part, Reference
from unclip.weights.prior_transformer import EMPTY_PROMPT
from unclip.weights.source import Source

CLIP = ClipIdentity(name="OpenAI ViT-L/14", normalised=False)
LICENCE = "CreativeML OpenRAIL-M"

Pairs = Iterator[tuple[str, Tensor]]
Empty = Callable[[], TextFeatures]
"""CLIP's encoding of the empty prompt, computed when first asked for."""


def clip_changes(reference: Reference) -> dict[str, object]:
    """How Karlo uses its CLIP: not normalised, images squashed by the authors (diffusers crops)."""
    fit = "squash" if reference == "authors" else "crop"
    return {"fit": fit, "normalise": False, "identity": CLIP.model_dump()}


def prior_part(
    network: PriorNetworkConfig, reference: Reference, tensors: Callable[[], Pairs], empty: Empty
) -> Part:
    """The prior.

    Args:
        network: its shape.
        reference: whose tables and step counts to follow.
        tensors: all that the source holds of it, by our names.
        empty: what a pass without text sees.
    """
    config = DiffusionPriorConfig(
        network=network,
        diffusion=_diffusion(reference, target="x0", variance="fixed_small"),
        scaling="standardised",
        text_drop=0.2,
        renormalise=False,
        clip=CLIP,
    )

    def everything() -> Pairs:
        yield from tensors()
        yield from _unconditional("network.unconditional.", empty())
        yield "posterior.mse", torch.full((config.diffusion.steps,), torch.nan)

    return Part("prior", config, everything)


def decoder_part(
    unet: UNetConfig,
    reference: Reference,
    tensors: Callable[[], Pairs],
    empty: Empty,
    *,
    size: int,
    embedding: int,
    tokens: int,
) -> Part:
    """The decoder.

    Args:
        unet: the shape of its U-Net.
        reference: whose tables and step counts to follow.
        tensors: all that the source holds of it, by our names.
        empty: what a pass without text sees.
        size: of its images.
        embedding: size of CLIP's embeddings, and of its text states.
        tokens: that z_i becomes.
    """
    config = DecoderConfig(
        size=size,
        network=DecoderNetworkConfig(
            unet=unet.model_copy(update={"dropout": 0.1}),
            embedding=embedding,
            image=ImageEmbeddingConfig(tokens=tokens, token_order="channel_major", scale=1),
            text=ClipStatesConfig(
                states=embedding, unconditional="stored", unconditional_tokens=EMPTY_PROMPT
            ),
        ),
        diffusion=_diffusion(reference, target="noise", variance="learned_range"),
        image_drop=0.1,
        text_drop=0.3,
        clip=CLIP,
    )

    def everything() -> Pairs:
        yield from tensors()
        yield from _unconditional("network.text.unconditional.", empty())

    return Part("decoder", config, everything)


def upsampler_part(
    unet: UNetConfig, reference: Reference, tensors: Callable[[], Pairs], *, low: int, high: int
) -> Part:
    """The pair of U-Nets that enlarges: one for the first steps, one for the last."""
    config = UpsamplerConfig(
        low=low,
        high=high,
        network=unet,
        last_step=True,
        diffusion=_diffusion(reference, target="noise", variance="fixed_small"),
        training_crop=min(64, high),
    )
    return Part(f"upsampler-{high}", config, tensors)


def imported(source: Source, family: str, parts: list[Part], reference: Reference) -> Import:
    """The parts with Karlo's sampling defaults and card."""
    card = card_of(
        source,
        family,
        description="Karlo v1.0.alpha: an unCLIP on OpenAI's CLIP ViT-L/14 (Kakao Brain, 2022)",
        licence=LICENCE,
        reference=reference,
    )
    size = next(part.name for part in parts if part.name.startswith("upsampler-"))
    return Import(parts, card, defaults(reference, size.removeprefix("upsampler-")))


def defaults(reference: Reference, size: str = "256") -> GenerateOptions:
    """Sampling as the reference does it by default.

    The authors clamp the prior's x̂0 at ±10 and take 50 steps of the decoder (25 are what they call
    fast), diffusers clamps at ±5 and takes 25.
    """
    authors = reference == "authors"
    return GenerateOptions(
        candidates=1,
        prior=SamplingOptions(
            sampler="ancestral", steps=25, guidance=4, clip="static", bound=10 if authors else 5
        ),
        decoder=SamplingOptions(sampler="ancestral", steps=50 if authors else 25, guidance=8),
        upsampler={size: SamplingOptions(sampler="ancestral", steps=7)},
    )


def empty_prompt(clip: Part) -> Empty:
    """What the text tower of ``clip`` makes of the empty prompt, read once and in float32."""

    @cache
    def encode() -> TextFeatures:
        assert isinstance(clip.config, ClipConfig)
        assert clip.save_extras is not None
        config = clip.config.model_copy(update={"image": None})
        with TemporaryDirectory() as folder:
            clip.save_extras(Path(folder))
            stage = Clip.from_config(config, Path(folder)).eval()
        weights = {key: t for key, t in clip.tensors() if not key.startswith("network.image.")}
        stage.load_state_dict(weights)
        return stage.encode_text([""], warn=False)

    return encode


def _diffusion(reference: Reference, *, target: str, variance: str) -> DiffusionConfig:
    authors = reference == "authors"
    return DiffusionConfig.parse(
        {
            "target": target,
            "variance": variance,
            "stride": "accumulated" if authors else "multiplied",
            "tables": "float64" if authors else "float32",
        },
        source="Karlo",
    )


def _unconditional(prefix: str, empty: TextFeatures) -> Pairs:
    yield prefix + "embedding", empty.embedding[0]
    yield prefix + "states", empty.states[0][empty.mask[0]]
