"""The space in which the prior diffuses image embeddings (§1.2). Knows no network, no schedule."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from unclip.nn.layers import unit_scale
from unclip.nn.measured import Measured

Scaling = Literal["constant", "standardised", "none"]


class EmbeddingSpace(Measured):
    """Between CLIP image embeddings z and the numbers x that noise is added to.

    ``constant``: x = s·z with s = `unit_scale`, so that image noise schedules fit.
    ``standardised``: x = (z - mean) / std per dimension, with measured statistics (Karlo,
    Kandinsky). ``none``: x = z (ECLIPSE).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Scaling, embedding: int) -> None:
        tables = ("mean", "std") if scaling == "standardised" else ()
        super().__init__(dict.fromkeys(tables, (embedding,)))
        self.scaling = scaling
        self.scale = 1.0 if scaling == "none" else unit_scale(embedding)

    def measure(self, embeddings: Float[Tensor, "samples d"]) -> None:
        """Take mean and standard deviation of each dimension from training embeddings."""
        assert self.scaling == "standardised", "a constant scale is not measured"
        self.mean.copy_(embeddings.double().mean(0))
        # A dimension that never varies would be divided by zero.
        self.std.copy_(embeddings.double().std(0).clamp(min=1e-6))

    def encode(self, embedding: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """Image embedding -> x, in float32."""
        if self.scaling == "standardised":
            return (embedding.float() - self.mean) / self.std
        return self.scale * embedding.float()

    def decode(self, x: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """The inverse of `encode`; the result is not renormalised."""
        return x * self.std + self.mean if self.scaling == "standardised" else x / self.scale
