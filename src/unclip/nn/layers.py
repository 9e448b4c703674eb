"""Small layers every stage shares. They know nothing of captions, images or noise schedules."""

import math

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


def unit_scale(embedding: int) -> float:
    """Factor that makes components of unit vectors as large as pixels in [-1, 1] (§1.2).

    Their rms becomes 0.5375, whatever the size; at 1,024 the factor is the paper's 17.2.
    """
    return 0.5375 * embedding**0.5


def timestep_embedding(
    t: Shaped[Tensor, " b"], width: int, max_period: float = 10_000.0
) -> Float[Tensor, "b width"]:
    """Sinusoids of t, cosines first, frequencies from 1 down to 1/max_period (ADM).

    ``width`` must be even. The result is float32.
    """
    half = width // 2
    # In this order, as published models were trained: at t = 1000 the last bit of a frequency
    # moves the angle by 1e-4.
    exponent = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device)
    angles = t.float()[:, None] * torch.exp(exponent / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """t -> sinusoids -> Linear, SiLU, Linear: the time embedding of ADM and of the prior."""

    def __init__(self, sinusoid: int, width: int) -> None:
        super().__init__()
        self.sinusoid = sinusoid
        self.linear_1 = nn.Linear(sinusoid, width)
        self.linear_2 = nn.Linear(width, width)

    def forward(self, t: Shaped[Tensor, " b"]) -> Float[Tensor, "b width"]:
        """Embed timesteps; the result has the dtype of the weights."""
        sinusoids = timestep_embedding(t, self.sinusoid).to(self.linear_1.weight.dtype)
        return self.linear_2(nn.functional.silu(self.linear_1(sinusoids)))


class QuickGELU(nn.Module):
    """x·σ(1.702 x), the GELU approximation OpenAI's CLIP weights were trained with."""

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Apply elementwise."""
        return x * torch.sigmoid(1.702 * x)
