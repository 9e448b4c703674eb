"""GroupNorm whose backward pass is fast where PyTorch's is not: small groups, channels last."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

NARROW = 16
"""Groups of fewer channels than this leave PyTorch's channels-last kernel without vectors."""


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm`; trained on CPUs in bfloat16, with a backward pass of its own."""

    def forward(self, input: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Normalise each group of channels over a whole image, then scale and shift."""
        if torch.is_grad_enabled() and self._slow_in_pytorch(input):
            return _Narrow.apply(input, self.weight, self.bias, self.num_groups, self.eps)
        return super().forward(input)

    def _slow_in_pytorch(self, x: Tensor) -> bool:
        return (
            x.device.type == "cpu"
            and x.dtype == torch.bfloat16
            and x.ndim == 4
            and x.is_contiguous(memory_format=torch.channels_last)
            and x.shape[1] < NARROW * self.num_groups
        )


class _Narrow(torch.autograd.Function):
    """PyTorch's forward pass; backward, sums for each channel and then one pass over the image.

    With x̂ = (x − μ)·r and g = γ·dy, the gradient r·(g − mean(g) − x̂·mean(g·x̂)) is
    a·dy + b·x + c, where a, b and c are numbers of a channel of an image.
    """

    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        batch, channels, *size = x.shape
        pixels = torch.Size(size).numel()
        y, mean, rstd = torch.native_group_norm(
            x, weight, bias, batch, channels, pixels, groups, eps
        )
        context.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    @once_differentiable
    def backward(context: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = context.saved_tensors
        batch, channels = x.shape[:2]
        wide = channels // mean.shape[1]
        members = wide * x[0, 0].numel()
        precise = torch.promote_types(x.dtype, torch.float32)
        scale = weight.to(precise)
        mean, rstd = (each.to(precise).repeat_interleave(wide, 1) for each in (mean, rstd))

        def over_group(values: Tensor) -> Tensor:
            grouped = values.unflatten(1, (-1, wide)).sum(2) / members
            return grouped.repeat_interleave(wide, 1)

        # An image at a time: what is made on the way then stays in the cache.
        of_dy = torch.stack([each.sum((1, 2), dtype=precise) for each in dy])
        of_both = torch.stack(
            [(a * b).sum((1, 2), dtype=precise) for a, b in zip(dy, x, strict=True)]
        )
        of_normal = rstd * (of_both - mean * of_dy)
        slope = rstd.square() * over_group(scale * of_normal)
        factors = (rstd * scale, -slope, slope * mean - rstd * over_group(scale * of_dy))
        on_dy, on_x, constant = (each.to(x.dtype)[:, :, None, None] for each in factors)
        dx = torch.empty_like(x)
        for i in range(batch):
            torch.mul(dy[i], on_dy[i], out=dx[i])
            dx[i].addcmul_(x[i], on_x[i]).add_(constant[i])
        return dx, of_normal.sum(0).to(weight), of_dy.sum(0).to(weight), None, None
