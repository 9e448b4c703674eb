"""Classifier-free guidance (§4.2): two callables joined into one, in one batched pass."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.diffusion.process import Network


def guided(
    conditional: Network,
    joint: Network,
    scale: float,
    interval: tuple[float, float] | None = None,
    mixed: int | None = None,
    total: int = 1000,
) -> Network:
    """A network whose output is unconditional + scale (conditional − unconditional).

    Args:
        conditional: the conditional pass, for a batch of b.
        joint: both passes at once, for a batch of 2b: the first half conditional, the second
            unconditional.
        scale: s; 1 is off and costs no second pass.
        interval: guide only where t / total lies in it, both ends included; 0 is clean.
        mixed: channels to guide, from the first; the rest (a learned variance) stay conditional.
            None guides all.
        total: T of the process, for ``interval``.
    """
    if scale == 1:
        return conditional
    return Guided(conditional, joint, scale, interval, mixed, total)


@dataclass(frozen=True)
class Guided:
    """The network that `guided` returns."""

    conditional: Network
    joint: Network
    scale: float
    interval: tuple[float, float] | None
    mixed: int | None
    total: int

    def __call__(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"]) -> Float[Tensor, "b ..."]:
        """Both passes, or only the conditional one outside the interval."""
        if self.interval is None:
            return self._both(x_t, t)
        return self.at(int(t[0]))(x_t, t)

    def at(self, timestep: int) -> Network:
        """What to call at ``timestep``, decided without asking the device for its value."""
        if self.interval is not None:
            low, high = self.interval
            if not low <= timestep / self.total <= high:
                return self.conditional
        return self._both

    def _both(self, x_t: Tensor, t: Tensor) -> Tensor:
        output = self.joint(torch.cat([x_t, x_t]), torch.cat([t, t])).to(x_t.dtype)
        conditional, unconditional = output.chunk(2)
        mixed = output.shape[1] if self.mixed is None else self.mixed
        difference = conditional[:, :mixed] - unconditional[:, :mixed]
        guided = unconditional[:, :mixed] + self.scale * difference
        return torch.cat([guided, conditional[:, mixed:]], dim=1)


@dataclass(frozen=True)
class HandedOver:
    """A network that hands over to another for a sampler's last step, as Karlo's upsampler."""

    first: Network
    last: Network
    cleanest: int
    """The timestep of the last step."""

    def __call__(self, x_t: Float[Tensor, "b ..."], t: Int[Tensor, " b"]) -> Float[Tensor, "b ..."]:
        """The network whose turn it is."""
        return self.at(int(t[0]))(x_t, t)

    def at(self, timestep: int) -> Network:
        """What to call at ``timestep``."""
        return self.last if timestep == self.cleanest else self.first


def network_at(network: Network, timestep: int) -> Network:
    """``network``, or of one that changes with the noise level what it is at ``timestep``."""
    return network.at(timestep) if isinstance(network, Guided | HandedOver) else network
