"""Kandinsky 2.2 in its two repositories: prior and CLIP in one, decoder and MoVQ in the other.

The authors' own code calls diffusers, so that there is one behaviour; a reference only chooses the
precision of the tables.
"""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unclip.checkpoint import WEIGHTS, read_config
from unclip.clip.clip import TOKENIZER, ClipConfig
from unclip.clip.text import TextTower
from unclip.clip.tokenizer import Tokenizer
from unclip.clip.vision import ViT, ViTConfig
from unclip.decoder.conditioning import ImageEmbeddingConfig, NoTextConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import CheckpointError
from unclip.identity import ClipIdentity
from unclip.options import GenerateOptions
from unclip.prior.diffusion_prior import DiffusionPriorConfig
from unclip.prior.options import PriorSampling
from unclip.weights.adm import diffusers_unet, diffusers_unet_config, plain
from unclip.weights.card import card_of
from unclip.weights.clip import transformers_part
from unclip.weights.family import Family, Import, Part, Reference
from unclip.weights.movq import MOVQ, codec_config
from unclip.weights.prior_transformer import diffusers_prior, diffusers_prior_config
from unclip.weights.rename import Rule, renamed
from unclip.weights.source import Source, reading
from unclip.weights.streamed import streamed
from unclip.weights.tensors import open_tensors

INDEX = "model_index.json"
PRIORS = ("KandinskyV22PriorPipeline", "KandinskyV22PriorEmb2EmbPipeline")
DECODERS = ("KandinskyV22Pipeline", "KandinskyV22Img2ImgPipeline")
CLIP = ClipIdentity(name="LAION ViT-bigG/14", normalised=False)
LICENCE = "Apache-2.0"
PRIOR_STEPS, DECODER_STEPS = 25, {"authors": 50, "diffusers": 100}
GUIDANCE = 4.0

IMAGE = plain(
    {
        "encoder_hid_proj.image_embeds": "image.to_tokens",
        "encoder_hid_proj.norm": "image.norm_tokens",
        "add_embedding.image_proj": "image.to_time",
        "add_embedding.image_norm": "image.norm_time",
    },
    ours="network.",
)
"""How z_i enters the U-Net -> the conditioning of a `Decoder`."""

_SPACINGS = {"leading": "leading", "linspace": "strided", "trailing": "trailing"}
_EMPTY = "network.image.stored.embedding"

Pairs = Iterator[tuple[str, Tensor]]


def recognises_prior(source: Source) -> bool:
    """Whether it is the repository of the prior."""
    return source.has(INDEX) and source.json(INDEX).get("_class_name") in PRIORS


def recognises_decoder(source: Source) -> bool:
    """Whether it is the repository of the decoder."""
    return source.has(INDEX) and source.json(INDEX).get("_class_name") in DECODERS


def plan_prior(source: Source, reference: Reference) -> Import:
    """CLIP and prior.

    Raises:
        CheckpointError: a file is missing or of another structure.
    """
    clip = transformers_part(
        source,
        text="text_encoder",
        image="image_encoder",
        processor="image_processor",
        changes={"normalise": False, "identity": CLIP},
    )
    prior, sampling = _prior(source, reference)
    card = card_of(
        source,
        "kandinsky-prior",
        description="Kandinsky 2.2: prior and CLIP (AI Forever, 2023)",
        licence=LICENCE,
        reference=reference,
    )
    return Import([clip, prior], card, GenerateOptions(candidates=1, prior=sampling))


def plan_decoder(source: Source, reference: Reference) -> Import:
    """Decoder and codec. The decoder is complete only beside the CLIP of the other repository.

    Raises:
        CheckpointError: a file is missing or of another structure.
    """
    decoder, sampling = _decoder(source, reference)
    with reading(f"{source.name}/movq/config.json") as where:
        codec = codec_config(source.json("movq/config.json"), where)
    weights = source.tensors(folder="movq")
    card = card_of(
        source,
        "kandinsky-decoder",
        description="Kandinsky 2.2: decoder and MoVQ (AI Forever, 2023)",
        licence=LICENCE,
        reference=reference,
    )
    parts = [decoder, Part("codec", codec, lambda: renamed(weights, MOVQ, name="movq"))]
    return Import(parts, card, GenerateOptions(decoder=sampling))


FAMILIES = (
    Family("kandinsky-prior", recognises_prior, plan_prior),
    Family("kandinsky-decoder", recognises_decoder, plan_decoder),
)


def zero_image(folder: Path) -> Tensor:
    """CLIP's embedding [d] of an image whose standardised pixels are all zero.

    Args:
        folder: of a CLIP in our layout. Its image tower is read layer by layer.

    Raises:
        CheckpointError: there is none, or it has no vision transformer.
    """
    config = _clip_beside(folder)
    if not isinstance(config.image, ViTConfig):
        raise CheckpointError(f"{folder} has no vision transformer, which Kandinsky's CLIP is")
    with torch.device("meta"):
        tower = ViT(config.image, config.embedding).eval()
    tensors = open_tensors([folder / WEIGHTS]).without_prefix("network.image.")
    size = config.image.size
    with torch.no_grad(), streamed(tower, tensors):
        return tower(torch.zeros(1, 3, size, size))[0]


def empty_prompt(folder: Path) -> tuple[Tensor, Tensor]:
    """CLIP's embedding [d] and states [2 f] of the empty prompt: what guidance compares with.

    Args:
        folder: of a CLIP in our layout. Its text tower is read layer by layer.

    Raises:
        CheckpointError: there is none, or it has no text tower.
    """
    config = _clip_beside(folder)
    if config.text is None:
        raise CheckpointError(f"{folder} has no text tower, which Kandinsky's prior reads")
    with torch.device("meta"):
        tower = TextTower(config.text, config.embedding).eval()
    ids, mask, _ = Tokenizer.load(folder / TOKENIZER).encode([""], config.text.context)
    tensors = open_tensors([folder / WEIGHTS]).without_prefix("network.text.")
    with torch.no_grad(), streamed(tower, tensors):
        embedding, states = tower(ids, mask)
    return embedding[0], states[0][mask[0]]


def _clip_beside(folder: Path) -> ClipConfig:
    if not folder.is_dir():
        raise CheckpointError(
            "Kandinsky's decoder needs the CLIP of its prior's repository; import both together, "
            "as PRIOR+DECODER (kandinsky-2-2-prior+kandinsky-2-2-decoder)"
        )
    _, config = read_config(folder)
    assert isinstance(config, ClipConfig)
    return config


def _prior(source: Source, reference: Reference) -> tuple[Part, PriorSampling]:
    with reading(f"{source.name}/prior/config.json") as where:
        network = diffusers_prior_config(source.json("prior/config.json"), where)
    with reading(f"{source.name}/scheduler/scheduler_config.json") as where:
        scheduler = source.json("scheduler/scheduler_config.json")
        clip = scheduler["clip_sample_range"] if scheduler.get("clip_sample", True) else None
        if scheduler["prediction_type"] != "sample":
            raise CheckpointError(f"{where}: Kandinsky's prior predicts the sample, not the noise")
    config = DiffusionPriorConfig(
        network=network,
        diffusion=DiffusionConfig(
            target="x0", variance="fixed_small", stride="multiplied", tables=_tables(reference)
        ),
        scaling="standardised",
        renormalise=False,
        clip=CLIP,
    )
    weights = source.tensors(folder="prior")

    def tensors() -> Pairs:
        for key, tensor in renamed(weights, diffusers_prior(), name="prior"):
            if key == "space.std" and not (tensor > 0).all():
                raise CheckpointError(
                    f"{source.name}: the prior's clip_std is zero, so that every prompt would give "
                    "one embedding; take weights with measured statistics"
                )
            yield key, tensor
        yield "posterior.mse", torch.full((config.diffusion.steps,), torch.nan)

    def borrowed(model: Path) -> Pairs:
        names = ("network.unconditional.embedding", "network.unconditional.states")
        yield from zip(names, empty_prompt(model / "clip"), strict=True)

    sampling = PriorSampling(
        sampler="ancestral",
        steps=PRIOR_STEPS,
        guidance=GUIDANCE,
        clip="none" if clip is None else "static",
        bound=1.0 if clip is None else clip,
    )
    return Part("prior", config, tensors, after=borrowed), sampling


def _decoder(source: Source, reference: Reference) -> tuple[Part, SamplingOptions]:
    weights = source.tensors(folder="unet")
    with reading(f"{source.name}/unet/config.json") as where:
        values = source.json("unet/config.json")
        unet = diffusers_unet_config(values, where)
        kinds = (values["encoder_hid_dim_type"], values["addition_embed_type"])
        if kinds != ("image_proj", "image") or unet.in_channels != 4:
            raise CheckpointError(
                f"{where}: conditioned on {kinds} with {unet.in_channels} channels in; of "
                "Kandinsky's decoders only the one for text to image can be imported"
            )
        width = values["cross_attention_dim"]
        tokens = weights.shape("encoder_hid_proj.image_embeds.bias")[0] // width
        embedding, size = values["encoder_hid_dim"], values["sample_size"]
    with reading(f"{source.name}/scheduler/scheduler_config.json") as where:
        scheduler = source.json("scheduler/scheduler_config.json")
        diffusion = _diffusion(scheduler, reference, where)
        sampling = _sampling(scheduler, reference, where)
    config = DecoderConfig(
        size=size,
        network=DecoderNetworkConfig(
            unet=unet,
            embedding=embedding,
            image=ImageEmbeddingConfig(tokens=tokens, scale=1, null="stored", norm=True),
            text=NoTextConfig(),
        ),
        diffusion=diffusion,
        text_drop=0,
        clip=CLIP,
    )
    rules: list[Rule] = [*diffusers_unet(unet, "network.unet."), *IMAGE]

    def borrowed(model: Path) -> Pairs:
        yield _EMPTY, zero_image(model / "clip")

    part = Part("decoder", config, lambda: renamed(weights, rules, name="unet"), after=borrowed)
    return part, sampling


def _diffusion(scheduler: Mapping[str, Any], reference: Reference, where: str) -> DiffusionConfig:
    expected = {"beta_schedule": "linear", "prediction_type": "epsilon", "trained_betas": None}
    for name, value in expected.items():
        if scheduler.get(name, value) != value:
            raise CheckpointError(f"{where}: {name} is {scheduler[name]!r}, not {value!r}")
    return DiffusionConfig(
        steps=scheduler["num_train_timesteps"],
        schedule="linear",
        betas=(scheduler["beta_start"], scheduler["beta_end"]),
        target="noise",
        variance="learned_range",
        stride="multiplied",
        tables=_tables(reference),
    )


def _sampling(scheduler: Mapping[str, Any], reference: Reference, where: str) -> SamplingOptions:
    if scheduler.get("_class_name") != "DDPMScheduler":
        warnings.warn(
            f"{where} is a {scheduler.get('_class_name')}; sampling follows DDPM, the authors'",
            stacklevel=2,
        )
    clip: dict[str, Any] = {"clip": "none"}
    if scheduler.get("thresholding"):
        clip = {
            "clip": "dynamic",
            "percentile": scheduler["dynamic_thresholding_ratio"],
            "limit": scheduler["sample_max_value"],
        }
    elif scheduler.get("clip_sample", True):
        clip = {"clip": "static", "bound": scheduler.get("clip_sample_range", 1.0)}
    spacing = _SPACINGS[scheduler.get("timestep_spacing", "leading")]
    values = {
        "sampler": "ancestral",
        "steps": DECODER_STEPS[reference],
        "guidance": GUIDANCE,
        "spacing": spacing,
        **clip,
    }
    return SamplingOptions.parse(values, source=where)


def _tables(reference: Reference) -> Any:
    return "float32" if reference == "diffusers" else "float64"
