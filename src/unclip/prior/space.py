"""The space in which the prior diffuses image embeddings (§1.2), and tables that are measured.

Knows no network and no noise schedule.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip.nn.layers import unit_scale

Scaling = Literal["constant", "standardised"]


class Measured(nn.Module):
    """Tables that are measured, not trained: saved with the weights, NaN until measured.

    They stay float32 when the module around them is cast: a rounded std would shift embeddings.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._measured = False
        for name, shape in shapes.items():
            self.register_buffer(name, torch.full(shape, torch.nan))

    @property
    def measured(self) -> bool:
        """Whether every table holds numbers."""
        if not self._measured:  # remembered, for asking a GPU makes it wait
            self._measured = all(bool(table.isfinite().all()) for table in self.buffers())
        return self._measured

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Measured":
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if isinstance(tensor, nn.Parameter) or moved.dtype == tensor.dtype:
                return moved
            return tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)


class EmbeddingSpace(Measured):
    """Between CLIP image embeddings z and the numbers x that noise is added to.

    ``constant``: x = s·z with s = `unit_scale`, so that image noise schedules fit.
    ``standardised``: x = (z - mean) / std per dimension, with measured statistics (Karlo,
    Kandinsky).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Scaling, embedding: int) -> None:
        tables = ("mean", "std") if scaling == "standardised" else ()
        super().__init__(dict.fromkeys(tables, (embedding,)))
        self.scaling = scaling
        self.scale = unit_scale(embedding)

    def measure(self, embeddings: Float[Tensor, "samples d"]) -> None:
        """Take mean and standard deviation of each dimension from training embeddings."""
        assert self.scaling == "standardised", "a constant scale is not measured"
        self.mean.copy_(embeddings.double().mean(0))
        # A dimension that never varies would be divided by zero.
        self.std.copy_(embeddings.double().std(0).clamp(min=1e-6))

    def encode(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Image embedding -> x, in float32."""
        if self.scaling == "constant":
            return self.scale * embedding.float()
        return (embedding.float() - self.mean) / self.std

    def decode(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The inverse of `encode`; the result is not renormalised."""
        return x / self.scale if self.scaling == "constant" else x * self.std + self.mean
