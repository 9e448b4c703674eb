"""Networks that are right by construction, and randomness that is prepared."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from unclip.diffusion.process import Network, Process
from unclip.randomness import InjectedNoise

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t, alpha, sigma) -> E[x0 | x_t]."""


def gaussian(std: float) -> Denoise:
    """Exact denoiser of data from N(0, std²)."""
    return lambda x, a, s: a * std**2 / (a**2 * std**2 + s**2) * x


class Mixture:
    """Three round Gaussians in the plane, of unequal weight, with their exact denoiser."""

    weights = torch.tensor([0.5, 0.3, 0.2])
    centres = torch.tensor([[-0.7, -0.5], [0.8, -0.2], [0.1, 0.8]])

    def __init__(self, std: float = 0.12) -> None:
        self.std = std

    def draw(self, n: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        return self.centres[mode] + self.std * torch.randn(n, 2, generator=generator)

    def mode_weights(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x, self.centres).argmin(dim=1)
        return torch.bincount(nearest, minlength=3) / len(x)

    def denoise(self, x: Tensor, a: Tensor, s: Tensor) -> Tensor:
        centres, variance = self.centres.to(x), a**2 * self.std**2 + s**2
        offset = x[:, None] - a[:, None] * centres
        logits = self.weights.to(x).log() - offset.square().sum(-1) / (2 * variance)
        means = centres + (a * self.std**2 / variance)[:, None] * offset
        return (logits.softmax(dim=1)[..., None] * means).sum(1)


def network_of(process: Process, denoise: Denoise, fraction: float = 0.0) -> Network:
    """A network of ``process`` that knows E[x0 | x_t], in whatever form the process wants it."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        a, s = process.lookup("alpha", t, x), process.lookup("sigma", t, x)
        x0 = denoise(x, a, s)
        noise = (x - a * x0) / s
        target = {"x0": x0, "noise": noise, "v": a * noise - s * x0}[process.config.target]
        if process.outputs == 1:
            return target
        return torch.cat([target, torch.full_like(target, 2 * fraction - 1)], dim=1)

    return network


def wavy(outputs: int = 1) -> Network:
    """A smooth nonlinear network that means nothing, for agreement with other code."""

    def network(x: Tensor, t: Tensor) -> Tensor:
        phase = t.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1)) / 150
        parts = [0.8 * torch.tanh(1.3 * x + phase.sin()), 0.9 * torch.sin(2 * x - phase)]
        return torch.cat(parts[:outputs], dim=1)

    return network


class Prepared(InjectedNoise):
    """Prepared noise and prepared timesteps; counts what was drawn."""

    def __init__(self, normals: Iterable[Tensor], integers: Tensor | None = None) -> None:
        super().__init__(normals)
        self.drawn = 0
        self._integers = integers

    def normal(self, *shape: int) -> Tensor:
        self.drawn += 1
        return super().normal(*shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._integers


def noises(count: int, *shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> list:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]
