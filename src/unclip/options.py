"""What a caller may ask of a pipeline: one definition for the API, the command line and PNGs.

Fields left unset take the model's own defaults, so options say only what differs.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from cyclopts import Group, Parameter
from pydantic import BeforeValidator, Field

from unclip.config import Config
from unclip.diffusion.options import SamplingOptions
from unclip.prior.options import PriorSampling, for_prior

MAX_SEED = 2**63 - 1

PRIOR, DECODER, UPSAMPLER = (
    Group(title, help, sort_key=place)
    for place, (title, help) in enumerate(
        (
            ("Prior", "From the text to an image embedding (§1.3, §1.4)."),
            ("Decoder", "From the image embedding to a small image (§1.5)."),
            ("Upsamplers", "To larger ones (§1.6); {NAME} is the size drawn, such as 256."),
        ),
        start=1,
    )
)


def _plain(options: Any) -> Any:
    return for_prior(options) if isinstance(options, SamplingOptions) else options


def upsampling(size: int) -> SamplingOptions:
    """How an upsampler to ``size`` is sampled whose model does not say: as in the paper (§1.6)."""
    return SamplingOptions(sampler="ddim", steps=27 if size <= 256 else 15)


class Seeded(Config):
    """What may be asked wherever something random is drawn; the classes below add to it."""

    seed: int = Field(
        0,
        ge=0,
        le=MAX_SEED,
        description="Seed of the noise of the first image; that of the next is one more.",
    )

    def over(self, defaults: "GenerateOptions") -> "GenerateOptions":
        """These options where they are set, ``defaults`` elsewhere; every field of it is set."""
        return defaults.updated(self.model_dump(exclude_unset=True))

    def asked(self) -> "GenerateOptions":
        """The same as options of all stages: what is unset stays so."""
        return GenerateOptions(**self.model_dump(exclude_unset=True))


class Batched(Seeded):
    """Where more than one image or embedding is computed."""

    batch: int = Field(4, ge=1, description="Images computed together; more need more memory.")


class Embedding(Batched):
    """Where prompts become image embeddings."""

    candidates: int | None = Field(
        None,
        ge=1,
        description="Image embeddings drawn from the prior; the nearest to the text wins. "
        "If neither given nor the model's own, as in the paper: 2 of a diffusion prior, else 1.",
    )
    prior: Annotated[PriorSampling, BeforeValidator(_plain), Parameter(group=PRIOR)] = Field(
        PriorSampling(steps=64), description="Sampling of the prior (§1.3, §1.4)."
    )


class Enlarging(Seeded):
    """Where the upsamplers work."""

    size: int | None = Field(
        None, ge=1, description="Pixels a side, such as 64, 256 or 1024; the largest if unset."
    )
    tile: int | None = Field(
        None, ge=32, description="Upsample in overlapping tiles of this many pixels a side."
    )
    upsampler: Annotated[
        dict[str, Annotated[SamplingOptions, Parameter(show_default=False, negative_iterable=())]],
        Parameter(group=UPSAMPLER),
    ] = Field({}, description="Sampling of the upsamplers, by the size they draw: 256, 1024.")


class DrawingSquares(Enlarging, Batched):
    """Where the decoder draws, and can draw squares alone."""

    decoder: Annotated[SamplingOptions, Parameter(group=DECODER)] = Field(
        SamplingOptions(steps=250), description="Sampling of the decoder (§1.5)."
    )


class Drawing(DrawingSquares):
    """Where the decoder draws."""

    width: int | None = Field(
        None,
        ge=1,
        description="Pixels across, if not as many as down; for models that draw any size.",
    )


class Several(Config):
    """Where as many images are drawn as one likes."""

    images: Annotated[int, Parameter(alias="-n")] = Field(
        1,
        ge=1,
        le=10_000,
        description="Images of each prompt or embedding; their seeds count up from `seed`.",
    )


class DrawingSeveral(Drawing, Several):
    """Where as many images are drawn as one likes, of an embedding that is there already."""


class DrawingBetween(Drawing, Embedding):
    """Where images are drawn of other images and of prompts, and their number is no option."""


class Repainting(DrawingSquares, Several, Embedding):
    """Where parts of an image are drawn, of which the rest is known."""


class GenerateOptions(DrawingSeveral, Embedding):
    """Options of `UnCLIP.generate`: of all stages."""


def with_upsampling(defaults: GenerateOptions, sizes: Iterable[int]) -> GenerateOptions:
    """The defaults, with the program's for upsamplers to sizes of which they do not speak."""
    missing = {str(size): upsampling(size) for size in sizes if str(size) not in defaults.upsampler}
    if not missing:
        return defaults
    return defaults.model_copy(update={"upsampler": defaults.upsampler | missing})
