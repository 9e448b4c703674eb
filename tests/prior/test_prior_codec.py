"""Tokens of image embeddings: buckets against numpy's quantiles, round trips, order (§8.9)."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from prior_batches import batch_of, units

from unclip.errors import DataError
from unclip.prior.codec import Codec
from unclip.prior.pca import principal_components
from unclip.types import Batch

D, K, BUCKETS, N = 16, 6, 32, 2000


def samples(n: int = N) -> Batch:
    """Unit vectors whose coordinates vary unequally, in no particular basis."""
    batch = batch_of(n, D)
    generator = torch.Generator().manual_seed(5)
    raw = torch.randn(n, D, generator=generator) * torch.logspace(0, -1.5, D) + 0.2
    turned = raw @ torch.linalg.qr(torch.randn(D, D, generator=generator)).Q
    image = torch.nn.functional.normalize(turned, dim=-1)
    return Batch(batch.keys, text=batch.text, image_embedding=image)


def fitted(components: int = K, buckets: int = BUCKETS) -> Codec:
    codec = Codec(D, components, buckets)
    codec.fit([samples()])
    return codec


def image_of(batch: Batch) -> torch.Tensor:
    assert batch.image_embedding is not None
    return batch.image_embedding


def test_buckets_are_numpys_quantiles_of_each_coordinate() -> None:
    codec, image = fitted(), image_of(samples())
    coordinates = principal_components([image]).project(image, K).numpy()
    places = np.arange(1, BUCKETS) / BUCKETS
    expected = np.quantile(coordinates, places, axis=0).T
    assert codec.edges.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    tokens = codec.encode(image).numpy()
    theirs = np.stack([np.digitize(coordinates[:, j], expected[j]) for j in range(K)], axis=1)
    assert (tokens == theirs).mean() > 0.9995, "but for rounding at an edge"
    counts = np.stack([np.bincount(tokens[:, j], minlength=BUCKETS) for j in range(K)])
    assert counts.min() >= N // BUCKETS - 2
    assert counts.max() <= N // BUCKETS + 3
    for j, bucket in ((0, 0), (2, 7), (K - 1, BUCKETS - 1)):
        mean = coordinates[theirs[:, j] == bucket, j].mean()
        assert codec.values[j, bucket].item() == pytest.approx(mean, rel=1e-4)


def test_every_sequence_of_tokens_survives_the_round_trip() -> None:
    codec = fitted()
    tokens = torch.randint(BUCKETS, (5000, K), generator=torch.Generator().manual_seed(1))
    assert torch.equal(codec.encode(codec.decode(tokens)), tokens)


def test_round_trip_at_the_papers_fineness() -> None:
    """1,024 buckets of float32 coordinates are still told apart."""
    codec = Codec(D, K, 1024)
    codec.fit([samples(64 * 1024)])
    tokens = torch.randint(1024, (2000, K), generator=torch.Generator().manual_seed(1))
    assert torch.equal(codec.encode(codec.decode(tokens)), tokens)
    image = image_of(samples(500))
    kept = principal_components([image_of(samples(64 * 1024))]).reconstruct(image, K)
    quantised = codec.decode(codec.encode(image)).double()
    assert (quantised - kept).square().sum(1).mean() < 1e-3 * kept.var(0).sum()


def test_error_falls_with_the_components_kept() -> None:
    image = image_of(samples())
    codec = fitted(D)
    tokens = codec.encode(image)
    errors = [
        (codec.decode(tokens[:, :keep]) - image).square().sum(1).mean().item()
        for keep in range(D + 1)
    ]
    assert all(later < earlier for earlier, later in pairwise(errors))
    spread = (image - image.mean(0)).square().sum(1).mean().item()
    assert errors[D] < 0.01 * spread, "what is left is the width of the buckets"
    assert fitted().error == pytest.approx(errors[K] / spread, abs=0.01)


def test_the_most_variable_coordinate_comes_first() -> None:
    codec = fitted()
    decoded = codec.values.var(dim=1)
    assert (decoded.diff() < 0).all()
    assert (codec.spectrum.diff() <= 0).all()


def test_the_dot_token_counts_quantiles_of_the_dot_product() -> None:
    codec, batch = fitted(), samples()
    assert batch.text is not None
    tokens = codec.encode_dot(image_of(batch), batch.text.embedding)
    dots = (image_of(batch) * batch.text.embedding).sum(-1)
    assert dots[tokens >= BUCKETS // 2].min() >= dots[tokens < BUCKETS // 2].max()
    assert (tokens >= BUCKETS // 2).float().mean().item() == pytest.approx(0.5, abs=0.002)


def test_batches_of_any_size_fit_the_same_codec() -> None:
    batch, whole, parts = samples(), fitted(), Codec(D, K, BUCKETS)
    assert batch.text is not None
    rows = torch.arange(N).split(300)
    parts.fit(
        Batch(("x",) * len(r), text=batch.text.take(r), image_embedding=image_of(batch)[r])
        for r in rows
    )
    for name, table in whole.named_buffers():
        torch.testing.assert_close(parts.get_buffer(name), table, msg=name)


def test_few_different_samples_still_make_a_codec() -> None:
    """As with a handful of images, seen again and again: most buckets are empty."""
    codec = Codec(D, K, BUCKETS)
    codec.fit([samples(5)])
    assert codec.measured
    image = image_of(samples(5))
    decoded = codec.decode(codec.encode(image))
    assert torch.cosine_similarity(decoded, image).min() > 0.99


def test_tables_travel_with_the_weights_and_keep_their_precision() -> None:
    codec, other = fitted(), Codec(D, K, BUCKETS)
    assert not other.measured
    other.load_state_dict(codec.state_dict())
    assert other.measured
    other.to(torch.bfloat16)
    assert {table.dtype for table in other.buffers()} == {torch.float32}
    image = units(50, D, seed=8)
    assert torch.equal(other.encode(image), codec.encode(image))


def test_nothing_to_fit() -> None:
    with pytest.raises(DataError, match="no batch to fit"):
        Codec(D, K, BUCKETS).fit([])
