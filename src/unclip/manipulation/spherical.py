"""Turning one vector into another along the arc between them (§2). Knows vectors alone."""

import torch
from jaxtyping import Float
from torch import Tensor

_NEARLY_PARALLEL = 1e-6


def slerp(
    a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."], theta: Float[Tensor, " b"] | float
) -> Float[Tensor, "b ..."]:
    """Spherical interpolation: [sin((1−θ)Ω) a + sin(θΩ) b] / sin Ω, each row its own.

    Ω is the angle between the normalised rows, so unit vectors stay of unit length and Gaussian
    noise stays as loud as it is. At θ = 0 and θ = 1 the ends themselves come back, to the last
    bit. Rows that are parallel, or exactly opposite, have no one arc: they are mixed linearly.
    """
    shape = (-1, *[1] * (a.ndim - 1))
    theta = torch.as_tensor(theta, dtype=torch.float64, device=a.device).reshape(-1).expand(len(a))
    x, y = a.flatten(1).double(), b.flatten(1).double()
    x, y = (v / v.norm(dim=1, keepdim=True).clamp(min=1e-300) for v in (x, y))
    # Twice the arctangent, since the arccosine loses half the digits of small angles.
    omega = 2 * torch.atan2((x - y).norm(dim=1), (x + y).norm(dim=1))
    sine = omega.sin()
    curved = sine > _NEARLY_PARALLEL
    safe = torch.where(curved, sine, 1.0)
    on_a = torch.where(curved, ((1 - theta) * omega).sin() / safe, 1 - theta)
    on_b = torch.where(curved, (theta * omega).sin() / safe, theta)
    turned = (on_a.view(shape) * a.double() + on_b.view(shape) * b.double()).to(a.dtype)
    turned = torch.where((theta == 0).view(shape), a, turned)
    return torch.where((theta == 1).view(shape), b.to(a.dtype), turned)


def weighted(vectors: Float[Tensor, "k d"], weights: Float[Tensor, " k"]) -> Float[Tensor, " d"]:
    """The direction of the weighted sum, as long as the vectors are on (weighted) average.

    A negative weight turns away from its vector.
    """
    weights, vectors = weights.double(), vectors.double()
    total = weights @ vectors
    length = weights.abs() @ vectors.norm(dim=1) / weights.abs().sum()
    return (total * (length / total.norm().clamp(min=1e-12))).float()
