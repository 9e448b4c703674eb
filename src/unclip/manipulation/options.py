"""What may be asked of each manipulation: defined once for API, command line and PNG.

How pictures are sampled is `GenerateOptions`' to say. Imports no torch.
"""

from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from unclip.config import Config

Fit = Literal["crop", "pad"]


class _Square(Config):
    """What becomes of a picture that is not square."""

    fit: Fit = Field("crop", description="Cut the middle out, or pad with white: crop or pad.")


class _Inverting(_Square):
    """How x_T of a picture is found."""

    exact: bool = Field(
        False, description="Solve each step of the inversion by iteration; many times slower."
    )


class Vary(_Inverting):
    """Options of `vary` (Fig. 3)."""

    eta: float = Field(
        0.0, ge=0, description="DDIM noise on the way from x_T; 0 adds none, 1 is usual sampling."
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="How far x_T moves to fresh noise: 0 keeps it, 1 forgets it, which needs no "
        "inversion. Unset: 0 where eta is above 0, else 1.",
    )

    @property
    def departure(self) -> float:
        """The strength, set or not."""
        return (0.0 if self.eta > 0 else 1.0) if self.strength is None else self.strength

    @model_validator(mode="after")
    def _check(self) -> "Vary":
        if self.exact and self.departure == 1:
            raise ValueError(
                "exact does nothing at strength 1, where noise is fresh: set a lower strength"
            )
        return self


class Interpolate(_Inverting):
    """Options of `interpolate` (Fig. 4)."""

    frames: int = Field(
        8, ge=2, le=10_000, description="Pictures along the way, both ends among them."
    )
    noise: Literal["fixed", "slerp"] = Field(
        "fixed",
        description="x_T: one for all (`fixed`), or turned from one picture's to the next's "
        "(`slerp`), so that the ends reconstruct.",
    )
    grid: bool = Field(
        False, description="Between four pictures: `frames` × `frames`, one at each corner."
    )

    @model_validator(mode="after")
    def _check(self) -> "Interpolate":
        if self.exact and self.noise == "fixed":
            raise ValueError("exact does nothing with fixed noise: set noise to slerp")
        return self


class Mix(_Square):
    """Options of `mix`."""

    weights: tuple[float, ...] | None = Field(
        None, description="One for each image and prompt, in their order; equal if unset."
    )

    @model_validator(mode="after")
    def _check(self) -> "Mix":
        if self.weights is not None and sum(self.weights) == 0:
            raise ValueError("weights must not add up to 0")
        return self


class Edit(_Inverting):
    """Options of `edit`: a text diff (Fig. 5)."""

    to: str = Field(description="What the picture shall become.")
    origin: Annotated[str, Parameter(name="--from")] = Field(
        "", description="What it shows now; empty takes no baseline."
    )
    theta: float = Field(
        0.5, ge=0, le=1, description="How far to turn, of the arc; the paper's range is 0.25-0.5."
    )
    frames: int = Field(5, ge=1, le=1000, description="Pictures from 0 to theta; one: theta alone.")


class Inpaint(Config):
    """Options of `inpaint`."""

    prompt: str = Field("", description="What the whole picture shall show.")
    image_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the picture's own embedding beside the prompt's. Unset: 0 with a "
        "prompt, 1 without.",
    )
    box: tuple[int, int, int, int] | None = Field(
        None, description="Repaint this part: left, top, right, bottom in pixels of the picture."
    )
    extend: tuple[int, int, int, int] | None = Field(
        None, description="Paint beyond the edges: pixels on the left, top, right and bottom."
    )
    resamplings: int = Field(
        4, ge=1, le=100, description="How often each step is taken; more join better."
    )

    @model_validator(mode="after")
    def _check(self) -> "Inpaint":
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left < right and 0 <= top < bottom):
                raise ValueError("box must be left, top, right, bottom, and hold a pixel")
        if self.extend is not None and (min(self.extend) < 0 or max(self.extend) == 0):
            raise ValueError("extend must be four numbers of pixels, one at least above 0")
        return self


class Upscale(Config):
    """Options of `upscale`: none of its own."""


class Reconstruct(_Inverting):
    """Options of `reconstruct` (Fig. 7)."""

    dimensions: tuple[int, ...] = Field(
        (),
        description="Keep so many principal components of z_i, one picture each; none: invert "
        "the decoder and come back.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Reconstruct":
        if any(keep < 0 for keep in self.dimensions):
            raise ValueError("dimensions must be 0 or more")
        if self.exact and self.dimensions:
            raise ValueError("exact does nothing with dimensions, where nothing is inverted")
        return self


class Decode(Config):
    """Options of `decode`."""

    rows: tuple[int, ...] | None = Field(
        None, description="Which embeddings of the file to draw, counted from 0; all if unset."
    )


class Sweep(Config):
    """A grid over two options of another command."""

    command: str = Field("generate", description="What to draw each picture with.")
    how: dict[str, Any] = Field({}, description="That command's own options.")
    x: str = Field(description="The option that changes from left to right.")
    x_values: tuple[str, ...] = Field(min_length=1, description="Its values.")
    y: str = Field("", description="The option that changes from top to bottom; none if empty.")
    y_values: tuple[str, ...] = Field((), description="Its values.")

    @model_validator(mode="after")
    def _check(self) -> "Sweep":
        if bool(self.y) != bool(self.y_values):
            raise ValueError("y takes an option and its values")
        if self.x == self.y:
            raise ValueError(f"x and y are both {self.x}")
        return self
