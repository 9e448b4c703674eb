"""What a sampler sees of a network: x̂0 and ε̂ at the levels of its grid."""

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion.clipping import Clip
from unclip.diffusion.guidance import network_at
from unclip.diffusion.process import Network, Prediction, Process
from unclip.diffusion.schedule import Schedule


class Denoiser:
    """A network on a grid of noise levels, with its x̂0 clipped.

    The tables are plain numbers, read from float64 once for the whole sampling: a step then
    neither waits for the device nor copies to it.

    Args:
        process: knows what the network's output means.
        network: ``(x_t, t) -> output``.
        grid: the levels to visit, cleanest first.
        clip: applied to x̂0, from which ε̂ is then derived anew (§4.2).
        x0_error: see `SamplingOptions`. Of a network that predicts x0, ε̂ is the error of x̂0 over
            σ, which has no bound; with this it has.
    """

    def __init__(
        self,
        process: Process,
        network: Network,
        grid: Schedule,
        clip: Clip | None = None,
        x0_error: float = 0.0,
    ) -> None:
        self.process = process
        self.grid = grid
        self.timesteps: list[int] = grid.timesteps.tolist()
        self.alpha: list[float] = grid.alpha.tolist()
        self.sigma: list[float] = grid.sigma.tolist()
        self.posterior_variance: list[float] = grid.posterior_variance.tolist()
        self._network = network
        self._clip = clip
        self._x0_variance = x0_error**2

    def __len__(self) -> int:
        return len(self.timesteps)

    def __call__(self, x_t: Float[Tensor, "b ..."], place: int) -> Prediction:
        """Evaluate the network once, for x_t at the level ``place`` of the grid."""
        timestep = self.timesteps[place]
        t = torch.full((len(x_t),), timestep, device=x_t.device)
        output = network_at(self._network, timestep)(x_t, t)
        prediction = self.process.interpret_at(output, x_t, self.alpha[place], self.sigma[place])
        if self._x0_variance > 0:
            scale = 1 / self.alpha[place]
            noise_variance = (scale * self.sigma[place]) ** 2
            share = self._x0_variance / (self._x0_variance + noise_variance)
            seen = share * scale * x_t + (1 - share) * prediction.x0
            prediction = prediction.with_x0(seen)
        if self._clip is None:
            return prediction
        return prediction.with_x0(self._clip(prediction.x0))
