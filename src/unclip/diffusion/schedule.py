"""Noise schedules (§4.1): which noise levels a process passes through.

A process is a curve (α, σ) of the log-SNR; a `Schedule` is a finite list of points on it, and
the 1,000-step table of the paper is one instance. It knows neither networks nor targets.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unclip.errors import OptionError


@dataclass(frozen=True, eq=False)
class Schedule:
    """Noise levels in increasing order, as tables on the CPU, float64 unless asked otherwise.

    They are plain tensors rather than buffers: casting a module to bfloat16 would round buffers,
    and not every device has float64. x_t = alpha x0 + sigma noise at every level.
    """

    timesteps: Int64[Tensor, " k"]
    """What a network is told at each level: positions in the table it was trained with."""
    alpha_bar: Float[Tensor, " k"]
    """alpha²; strictly decreasing."""
    beta: Float[Tensor, " k"]
    """Variance added between neighbouring levels, rebuilt where respacing skips some (§4.2).

    It follows from alpha_bar, but for float32 tables not to the last bit: 1 − alpha_bar cancels.
    """

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def alpha(self) -> Float[Tensor, " k"]:
        """Scale of x0 in x_t."""
        return self.alpha_bar.sqrt()

    @property
    def sigma(self) -> Float[Tensor, " k"]:
        """Scale of the noise in x_t."""
        return (1 - self.alpha_bar).sqrt()

    @property
    def snr(self) -> Float[Tensor, " k"]:
        """Signal-to-noise ratio alpha² / sigma²."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def half_log_snr(self) -> Float[Tensor, " k"]:
        """λ = ½ log SNR; −inf at a level of pure noise."""
        return self.snr.log() / 2

    @property
    def previous_alpha_bar(self) -> Float[Tensor, " k"]:
        """alpha_bar of the next cleaner level; 1 (clean data) before the first."""
        return _previous(self.alpha_bar)

    @property
    def posterior_variance(self) -> Float[Tensor, " k"]:
        """β̃, the variance of q(x_{t−1} | x_t, x0); 0 at the first level (§4.2)."""
        return self.beta * (1 - self.previous_alpha_bar) / (1 - self.alpha_bar)

    @property
    def posterior_x0_scale(self) -> Float[Tensor, " k"]:
        """Factor of x0 in the mean of q(x_{t−1} | x_t, x0) (§4.2)."""
        return self.previous_alpha_bar.sqrt() * self.beta / (1 - self.alpha_bar)

    @property
    def posterior_x_t_scale(self) -> Float[Tensor, " k"]:
        """Factor of x_t in the mean of q(x_{t−1} | x_t, x0) (§4.2)."""
        previous = self.previous_alpha_bar
        return (1 - self.beta).sqrt() * (1 - previous) / (1 - self.alpha_bar)

    @property
    def log_beta(self) -> Float[Tensor, " k"]:
        """Logarithm of β, the upper end of a learned variance (§4.3)."""
        return self.beta.log()

    @property
    def log_posterior_variance(self) -> Float[Tensor, " k"]:
        """Logarithm of β̃, the lower end of a learned variance (§4.3).

        β̃ is 0 at the first level; its logarithm there is that of the second.
        """
        variance = self.posterior_variance
        variance[0] = variance[1] if len(self) > 1 else self.beta[0]
        return variance.log()

    def respace(self, timesteps: Sequence[int]) -> "Schedule":
        """Keep only the levels at ``timesteps`` (increasing, each in this schedule).

        alpha_bar is kept, and where a level is left out β is rebuilt from it; the network is
        still told the original timesteps (§4.2).
        """
        known = {int(t): place for place, t in enumerate(self.timesteps)}
        kept = list(timesteps)
        increasing = all(a < b for a, b in itertools.pairwise(kept))
        if not kept or not increasing or any(t not in known for t in kept):
            raise OptionError(
                f"timesteps {tuple(kept)}: give at least one, in increasing order, out of "
                f"{int(self.timesteps[0])}…{int(self.timesteps[-1])}"
            )
        places = torch.tensor([known[t] for t in kept])
        alpha_bar = self.alpha_bar[places]
        neighbours = places.diff(prepend=places.new_tensor([-1])) == 1
        beta = torch.where(neighbours, self.beta[places], _betas(alpha_bar))
        return Schedule(self.timesteps[places], alpha_bar, beta)


def from_betas(betas: Float[Tensor, " k"]) -> Schedule:
    """Schedule whose alpha_bar is the running product of 1 − β, in the dtype of ``betas``."""
    return Schedule(torch.arange(len(betas)), torch.cumprod(1 - betas, dim=0), betas)


def from_alpha_bar(timesteps: Int64[Tensor, " k"], alpha_bar: Float[Tensor, " k"]) -> Schedule:
    """Schedule of given levels, with the β that leads from each to the next."""
    return Schedule(timesteps, alpha_bar, _betas(alpha_bar))


def _betas(alpha_bar: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    return 1 - alpha_bar / _previous(alpha_bar)


def _previous(alpha_bar: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    return torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])


def linear(steps: int, ends: tuple[float, float] | None = None) -> Schedule:
    """β rising linearly from 0.1/T to 20/T (§4.1: 1e-4 to 0.02 at T = 1000), or as ``ends`` say."""
    if ends is not None:
        return from_betas(torch.linspace(*ends, steps, dtype=torch.float64))
    if steps <= 20:
        raise OptionError(f"a linear schedule of {steps} steps is impossible; take 21 or more")
    scale = 1000 / steps
    return from_betas(torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64))


def cosine(steps: int) -> Schedule:
    """alpha_bar following a squared cosine, with β at most 0.999 (§4.1)."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [1 - alpha_bar((i + 1) / steps) / alpha_bar(i / steps) for i in range(steps)]
    return from_betas(torch.tensor(betas, dtype=torch.float64).clamp(max=0.999))


def zero_terminal_snr(schedule: Schedule) -> Schedule:
    """Shift and scale alpha so that the last level is pure noise and the first is kept (§4.5).

    Targets must then be x0 or v: noise says nothing about x0 where there is only noise.
    """
    alpha = schedule.alpha
    first, last = alpha[0], alpha[-1]
    alpha = (alpha - last) * (first / (first - last))
    return from_alpha_bar(schedule.timesteps, alpha.square())
