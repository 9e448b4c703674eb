"""What a caller may ask of a pipeline: one definition for the API, the command line and PNGs.

Fields left unset take the model's own defaults, so options say only what differs.
"""

from typing import Annotated

from cyclopts import Parameter
from pydantic import Field

from unclip.config import Config
from unclip.diffusion.sampling import SamplingOptions

MAX_SEED = 2**63 - 1


class GenerateOptions(Config):
    """Options of `UnCLIP.generate`."""

    images: Annotated[int, Parameter(alias="-n")] = Field(
        1, ge=1, le=10_000, description="Images per prompt; their seeds count up from `seed`."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the first image of each prompt.")
    size: int | None = Field(
        None, ge=1, description="Pixels a side, such as 64, 256 or 1024; the largest if unset."
    )
    candidates: int = Field(
        2, ge=1, description="Image embeddings drawn from the prior; the nearest to the text wins."
    )
    batch: int = Field(4, ge=1, description="Images computed together; more need more memory.")
    tile: int | None = Field(
        None, ge=32, description="Upsample in overlapping tiles of this many pixels a side."
    )
    prior: SamplingOptions = Field(
        SamplingOptions(steps=64, clip="none"), description="Sampling of the prior (§1.4)."
    )
    decoder: SamplingOptions = Field(
        SamplingOptions(steps=250), description="Sampling of the decoder (§1.5)."
    )
    upsampler: dict[str, SamplingOptions] = Field(
        {}, description="Sampling of the upsamplers, by the size they draw: 256, 1024."
    )

    def over(self, defaults: "GenerateOptions") -> "GenerateOptions":
        """These options where they are set, ``defaults`` elsewhere."""
        return defaults.updated(self.model_dump(exclude_unset=True))
