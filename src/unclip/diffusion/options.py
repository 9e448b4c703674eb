"""How to walk from noise to data, as options: kept apart from the walk, for help without torch."""

from typing import Literal

from pydantic import Field, model_validator

from unclip.config import Config

Spacing = Literal["strided", "integer", "trailing", "leading", "log_snr"]
Clipping = Literal["none", "static", "dynamic"]
Variance = Literal["learned_range", "fixed_small", "fixed_large", "analytic"]
"""Of an ancestral step: learned between β̃ and β (§4.3), β̃, β, or measured (§4.4)."""


class SamplingOptions(Config):
    """How to walk from noise to data."""

    sampler: Literal["ancestral", "ddim", "dpm++", "unipc"] = "ancestral"
    """The walk: the paper's stochastic one, or one that needs fewer steps."""
    steps: int = Field(default=250, ge=1)
    """Evaluations of the network (of both passes, where guided)."""
    spacing: Spacing | tuple[int, ...] | None = None
    """Which timesteps to visit, or the timesteps themselves in increasing order. If unset, what
    suits the sampler: ``strided`` for ancestral, ``integer`` for ddim where such a stride exists,
    ``log_snr`` for the solvers."""
    guidance: float = 1.0
    """Scale s of unconditional + s (conditional − unconditional); 1 is off."""
    guidance_interval: tuple[float, float] | None = None
    """Guide only at these noise levels, as fractions of T; 0 is clean."""
    eta: float = Field(default=0.0, ge=0)
    """Noise of ddim: 0 is deterministic, 1 as noisy as ancestral sampling."""
    variance: Variance | None = None
    """Of ancestral sampling: β̃ (``fixed_small``), β (``fixed_large``), what the network says, or
    what was measured. If unset, what the network was trained for."""
    clip: Clipping | None = None
    """Of x̂0, to ±``bound`` or to a percentile of each sample. If unset, what suits the stage:
    ``static`` for images, ``none`` for embeddings, which have no bounds."""
    bound: float = Field(default=1.0, gt=0)
    """Where ``static`` clips, and what ``dynamic`` scales a sample down to."""
    percentile: float = Field(default=0.995, gt=0, le=1)
    """Of a sample's absolute values: where ``dynamic`` clips."""
    limit: float | None = Field(default=None, gt=0)
    """Where ``dynamic`` clips at most, whatever the percentile."""
    x0_error: float = Field(default=0.0, ge=0)
    """How far x̂0 is from the truth near clean data, as a root mean square. Where σ/α is less than
    that, x_t tells more of x0 than the network, and x̂0 becomes the mean of both, weighted by
    their precision. 0 trusts the network alone."""
    start: float = Field(default=1.0, gt=0, le=1)
    """Begin at this fraction of T instead of at pure noise."""
    end: float = Field(default=0.0, ge=0, lt=1)
    """End at this fraction of T: x̂0 there is the sample. Nearer to clean data, a small network
    takes away less noise than the walk leaves to it."""
    skip: int = Field(default=0, ge=0)
    """Leave out this many of the noisiest steps: an inversion of 249 of 250 steps has fewer noise
    artefacts (§2)."""

    @model_validator(mode="after")
    def _check(self) -> "SamplingOptions":
        if isinstance(self.spacing, tuple) and len(self.spacing) != self.steps:
            raise ValueError(f"spacing lists {len(self.spacing)} timesteps, steps is {self.steps}")
        if self.end >= self.start:
            raise ValueError(f"end {self.end} is not below start {self.start}")
        if self.skip >= self.steps:
            raise ValueError(f"skip {self.skip} leaves none of {self.steps} steps")
        if self.limit is not None and self.limit < self.bound:
            raise ValueError(f"limit {self.limit} is below bound {self.bound}")
        if self.guidance_interval is not None:
            low, high = self.guidance_interval
            if not 0 <= low <= high <= 1:
                raise ValueError("guidance_interval must be two rising fractions of T")
        return self
