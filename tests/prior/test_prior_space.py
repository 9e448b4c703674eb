"""Image embeddings and the numbers that noise is added to: §1.2."""

import pytest
import torch

from unclip.nn.layers import unit_scale
from unclip.prior.space import EmbeddingSpace


def test_the_papers_constant() -> None:
    assert unit_scale(1024) == pytest.approx(17.2)
    unit = torch.nn.functional.normalize(torch.randn(5, 768), dim=-1)
    assert EmbeddingSpace("constant", 768).encode(unit).square().mean() == pytest.approx(0.5375**2)


@pytest.mark.parametrize("scaling", ["constant", "standardised"])
def test_round_trip_leaves_the_callers_tensor_alone(scaling: str) -> None:
    embeddings = torch.randn(50, 12) * torch.rand(12) * 3 + torch.randn(12)
    original = embeddings.clone()
    space = EmbeddingSpace(scaling, 12)
    if scaling == "standardised":
        assert not space.measured
        space.measure(embeddings)
    assert space.measured
    x = space.encode(embeddings)
    torch.testing.assert_close(space.decode(x), embeddings)
    assert torch.equal(embeddings, original)


def test_standardised_dimensions_have_mean_0_and_std_1() -> None:
    embeddings = torch.randn(500, 6) * torch.tensor([0.1, 0.5, 1, 2, 3, 9]) + torch.randn(6)
    space = EmbeddingSpace("standardised", 6)
    space.measure(embeddings)
    x = space.encode(embeddings)
    torch.testing.assert_close(x.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(6))


def test_a_dimension_that_never_varies_stays_finite() -> None:
    embeddings = torch.cat([torch.randn(20, 3), torch.full((20, 1), 0.25)], dim=1)
    space = EmbeddingSpace("standardised", 4)
    space.measure(embeddings)
    x = space.encode(embeddings)
    assert x.isfinite().all()
    torch.testing.assert_close(space.decode(x), embeddings)


def test_statistics_travel_with_the_weights_and_keep_their_precision() -> None:
    space, other = EmbeddingSpace("standardised", 6), EmbeddingSpace("standardised", 6)
    space.measure(torch.randn(50, 6))
    assert not list(space.parameters())
    other.to(torch.bfloat16).load_state_dict(space.state_dict())
    assert other.mean.dtype == torch.float32
    assert torch.equal(other.std, space.std)
    assert torch.equal(space.to(torch.bfloat16).std, other.std)
