"""Image embeddings as short sequences of tokens (§1.3): PCA, then quantile buckets.

Token j says in which bucket of the training data coordinate j lies, the most variable coordinate
first. Knows no network.
"""

from collections.abc import Iterable
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.errors import DataError
from unclip.nn.measured import Measured
from unclip.prior.pca import Pca, lost, principal_components
from unclip.types import Batch

SAMPLES_PER_BUCKET = 64
"""That make a bucket's mean a figure worth keeping."""


class Codec(Measured):
    """z_i <-> tokens, and z_i·z_t -> one token; fitted once, saved with the weights.

    Args:
        embedding: size d of the embeddings.
        components: how many are kept (the paper: 319 of 1,024, losing less than 1 %).
        buckets: per coordinate, each as likely in training as any other (the paper: 1,024).
    """

    mean: Tensor
    components: Tensor
    spectrum: Tensor
    edges: Tensor
    values: Tensor
    dot_edges: Tensor

    def __init__(self, embedding: int, components: int, buckets: int) -> None:
        super().__init__(
            {
                "mean": (embedding,),
                "components": (components, embedding),
                "spectrum": (embedding,),
                "edges": (components, buckets - 1),
                "values": (components, buckets),
                "dot_edges": (buckets - 1,),
            }
        )
        self.buckets = buckets

    @property
    def samples(self) -> int:
        """How many training samples are enough to fit it."""
        return SAMPLES_PER_BUCKET * self.buckets

    @property
    def pca(self) -> Pca:
        """The components that are kept."""
        return Pca(*(table.double().cpu() for table in (self.mean, self.components, self.spectrum)))

    @property
    def error(self) -> float:
        """Share of the variance that the components left out hold."""
        return lost(self.spectrum, len(self.components))

    @torch.no_grad()
    def fit(self, batches: Iterable[Batch]) -> None:
        """Find components and buckets of training data, which should be in random order.

        Raises:
            DataError: there is no batch.
        """
        images, dots = [], []
        for batch in batches:
            assert batch.image_embedding is not None, "the codec is fitted to image embeddings"
            assert batch.text is not None, "the codec is fitted to z_i·z_t"
            image = batch.image_embedding.float().cpu()
            images.append(image)
            dots.append(_dot(image, batch.text.embedding.cpu()))
        if not images:
            raise DataError("no batch to fit the prior's codec on")
        pca = principal_components(images)
        keep = len(self.components)
        self.mean.copy_(pca.mean)
        self.components.copy_(pca.components[:keep])
        self.spectrum.copy_(pca.spectrum)
        for place, column in enumerate(pca.project(torch.cat(images), keep).T.contiguous()):
            edges = _quantile_edges(column, self.buckets)
            self.edges[place] = edges
            self.values[place] = _bucket_means(column, edges)
        self.dot_edges.copy_(_quantile_edges(torch.cat(dots).double(), self.buckets))

    def encode(self, embedding: Float[Tensor, "b d"]) -> Int[Tensor, "b k"]:
        """The token of each coordinate, by decreasing variance."""
        coordinates = (embedding.float() - self.mean) @ self.components.T
        return torch.searchsorted(self.edges, coordinates.T.contiguous(), right=True).T

    def decode(self, tokens: Int[Tensor, "b k"]) -> Float[Tensor, "b d"]:
        """The embedding whose coordinates are their buckets' means; not renormalised.

        With fewer tokens than components, the coordinates of the others are zero.
        """
        keep = tokens.shape[1]
        coordinates = self.values[:keep].gather(1, tokens.T).T
        return self.mean + coordinates @ self.components[:keep]

    def encode_dot(
        self, image: Float[Tensor, "b d"], text: Float[Tensor, "b d"]
    ) -> Int[Tensor, " b"]:
        """The token of z_i·z_t."""
        return torch.searchsorted(self.dot_edges, _dot(image, text), right=True)


def _dot(image: Tensor, text: Tensor) -> Tensor:
    return (image.float() * text.float()).sum(dim=-1)


def _quantile_edges(column: Float[Tensor, " n"], buckets: int) -> Float[Tensor, " edges"]:
    """Values that cut a column into equally many samples a bucket."""
    places = torch.arange(1, buckets, dtype=torch.float64) / buckets
    ordered = column.double().sort().values
    position = places * (len(ordered) - 1)
    below = position.floor().long()
    above = (below + 1).clamp(max=len(ordered) - 1)
    # torch.quantile takes no more than 16 million values.
    return torch.lerp(ordered[below], ordered[above], position - below)


def _bucket_means(column: Float[Tensor, " n"], edges: Float[Tensor, " e"]) -> Float[Tensor, " b"]:
    """The mean of each bucket; of an empty one the middle."""
    bounds = torch.cat([column.min()[None], edges, column.max()[None]])
    means = torch.stack([(low + high) / 2 for low, high in pairwise(bounds)])
    bucket = torch.searchsorted(edges, column, right=True)
    counts = torch.bincount(bucket, minlength=len(means))
    sums = torch.bincount(bucket, weights=column, minlength=len(means))
    return torch.where(counts > 0, sums / counts.clamp(min=1), means)
