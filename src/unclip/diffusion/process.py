"""The diffusion process (§4): noising, and what a network's output means.

It is the only place that knows whether a network predicts noise, x0 or v, and where a learned
variance sits in its output. It knows no network and no sampler.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from unclip.config import Config
from unclip.diffusion.options import Variance
from unclip.diffusion.schedule import cosine, from_betas, linear, zero_terminal_snr
from unclip.diffusion.spacing import Stride

Level = float | Float[Tensor, "b ..."]
Network = Callable[[Tensor, Tensor], Tensor]
"""``(x_t: Float[b ...], t: Int[b]) -> output``: a network with its conditioning bound."""


class DiffusionConfig(Config):
    """A process: its noise levels, what is predicted, and how the loss is weighted."""

    steps: int = Field(default=1000, ge=1)
    """T."""
    schedule: Literal["cosine", "linear"] = "cosine"
    betas: tuple[float, float] | None = None
    """First and last β of the linear schedule; None for the paper's."""
    target: Literal["noise", "x0", "v"] = "noise"
    data_scale: float = Field(default=1.0, gt=0)
    """d of the target v = (d² alpha noise − sigma x0) / √(d² alpha² + sigma²). 1: v as usual. Less:
    x0, down to where the noise over alpha deviates by d, and noise below. This is EDM's
    preconditioning (arXiv 2206.00364, Table 1) for data of the deviation d, on another scale."""
    variance: Variance = "fixed_small"
    """Of an ancestral step, unless sampling options say otherwise."""
    weighting: Literal["none", "min_snr"] = "none"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    vlb_weight: float = Field(default=0.001, ge=0)
    """Weight of L_vlb, a sum of T terms, beside the mean squared error (§4.3)."""
    zero_terminal_snr: bool = False
    stride: Stride = "exact"
    """How `spacing.strided` rounds; published models were sampled with roundings of their own."""
    tables: Literal["float64", "float32"] = "float64"
    """Precision of the noise levels. float32 is for agreement with diffusers, which computes them
    so: near clean data 1 − alpha_bar then has few digits left."""

    @model_validator(mode="after")
    def _check(self) -> "DiffusionConfig":
        if self.zero_terminal_snr and self.target == "noise":
            raise ValueError("zero_terminal_snr needs the target 'x0' or 'v', not 'noise'")
        if self.data_scale != 1 and self.target != "v":
            raise ValueError(f"data_scale belongs to the target 'v', not {self.target!r}")
        if self.betas is not None:
            first, last = self.betas
            if self.schedule != "linear" or not 0 < first <= last < 1:
                raise ValueError("betas are the rising ends, in (0, 1), of a linear schedule")
        return self


@dataclass(frozen=True)
class Prediction:
    """A network's output at x_t = alpha x0 + sigma noise, put in every parametrisation."""

    x_t: Float[Tensor, "b ..."]
    x0: Float[Tensor, "b ..."]
    noise: Float[Tensor, "b ..."]
    variance_fraction: Float[Tensor, "b ..."] | None
    """f of §4.3: 0 asks for β̃ and 1 for β; unclamped. None unless the variance is learned."""
    alpha: Level
    sigma: Level

    @property
    def v(self) -> Float[Tensor, "b ..."]:
        """Velocity: alpha noise − sigma x0 (§4.5)."""
        return self.alpha * self.noise - self.sigma * self.x0

    def with_x0(self, x0: Float[Tensor, "b ..."]) -> "Prediction":
        """Replace x0, say by its clipped self, and derive the noise from it anew (§4.2)."""
        return replace(self, x0=x0, noise=(self.x_t - self.alpha * x0) / self.sigma)


class Process:
    """A diffusion process. Timesteps ``t`` are positions in its table, 0 the cleanest."""

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        schedule = (
            linear(config.steps, config.betas)
            if config.schedule == "linear"
            else cosine(config.steps)
        )
        if config.tables == "float32":
            schedule = from_betas(schedule.beta.float())
        self.schedule = zero_terminal_snr(schedule) if config.zero_terminal_snr else schedule
        self._tables: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    @property
    def outputs(self) -> int:
        """Output channels a network needs for each channel of a sample."""
        return 2 if self.config.variance == "learned_range" else 1

    def lookup(
        self, name: str, t: Int[Tensor, " b"], like: Float[Tensor, "b ..."]
    ) -> Float[Tensor, "b ..."]:
        """A table of the schedule, by its name there, at ``t``; shaped to multiply ``like``."""
        key = (name, like.device, like.dtype)
        if key not in self._tables:
            # A table first needed while sampling must still serve autograd later.
            with torch.inference_mode(False):
                self._tables[key] = getattr(self.schedule, name).to(like.device, like.dtype)
        values = self._tables[key][t.to(like.device)]
        return values.reshape(-1, *[1] * (like.ndim - 1))

    def add_noise(
        self,
        x0: Float[Tensor, "b ..."],
        t: Int[Tensor, " b"],
        noise: Float[Tensor, "b ..."],
    ) -> Float[Tensor, "b ..."]:
        """x_t = alpha x0 + sigma noise (§4.1)."""
        return self.lookup("alpha", t, x0) * x0 + self.lookup("sigma", t, x0) * noise

    def training_target(
        self,
        x0: Float[Tensor, "b ..."],
        noise: Float[Tensor, "b ..."],
        t: Int[Tensor, " b"],
    ) -> Float[Tensor, "b ..."]:
        """What the network should say: the noise, x0 or v (see `DiffusionConfig.data_scale`)."""
        match self.config.target:
            case "noise":
                return noise
            case "x0":
                return x0
            case "v":
                alpha, sigma = (self.lookup(name, t, x0) for name in ("alpha", "sigma"))
                on_noise, on_x0 = self._velocity(alpha, sigma)
                return on_noise * noise - on_x0 * x0

    def split(
        self, output: Float[Tensor, "b ..."], x_t: Float[Tensor, "b ..."]
    ) -> tuple[Float[Tensor, "b ..."], Float[Tensor, "b ..."] | None]:
        """Part a network's output into the target and, if learned, the variance fraction."""
        channels = x_t.shape[1]
        assert output.shape == (len(x_t), channels * self.outputs, *x_t.shape[2:]), (
            f"output of shape {tuple(output.shape)} for x_t of shape {tuple(x_t.shape)}"
        )
        output = output.to(x_t.dtype)
        if self.outputs == 1:
            return output, None
        return output[:, :channels], (output[:, channels:] + 1) / 2

    def interpret(
        self,
        output: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        t: Int[Tensor, " b"],
    ) -> Prediction:
        """Read a network's output for x_t at timesteps ``t``."""
        return self.interpret_at(
            output, x_t, self.lookup("alpha", t, x_t), self.lookup("sigma", t, x_t)
        )

    def interpret_at(
        self,
        output: Float[Tensor, "b ..."],
        x_t: Float[Tensor, "b ..."],
        alpha: Level,
        sigma: Level,
    ) -> Prediction:
        """Read a network's output for x_t at any noise level, in the table or not."""
        target, fraction = self.split(output, x_t)
        match self.config.target:
            case "noise":
                x0, noise = (x_t - sigma * target) / alpha, target
            case "x0":
                x0, noise = target, (x_t - alpha * target) / sigma
            case "v":
                on_noise, on_x0 = self._velocity(alpha, sigma)
                length = on_noise * alpha + on_x0 * sigma
                x0 = (on_noise * x_t - sigma * target) / length
                noise = (on_x0 * x_t + alpha * target) / length
        return Prediction(x_t, x0, noise, fraction, alpha, sigma)

    def _velocity(self, alpha: Level, sigma: Level) -> tuple[Level, Level]:
        """Factors of noise and −x0 in v at a noise level."""
        square = self.config.data_scale**2
        length = (square * alpha**2 + sigma**2) ** 0.5
        return square * alpha / length, sigma / length
