"""Invariant 11 of the specification: ends exact, length kept, symmetric; angles against sums."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize

from unclip.manipulation.spherical import slerp, weighted


def unit(rows: int, size: int = 16, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_unit_vectors_stay_on_the_sphere(seed: int, theta: float) -> None:
    a, b = unit(2, seed=seed).split(1)
    assert float(slerp(a, b, theta).norm()) == pytest.approx(1, abs=1e-6)


def test_ends_come_back_to_the_last_bit() -> None:
    a, b = 3.7 * unit(8, seed=1), 0.2 * unit(8, seed=2)
    assert torch.equal(slerp(a, b, 0.0), a)
    assert torch.equal(slerp(a, b, 1.0), b)


def test_half_way_is_symmetric() -> None:
    a, b = unit(8, seed=3), unit(8, seed=4)
    torch.testing.assert_close(slerp(a, b, 0.5), slerp(b, a, 0.5))
    torch.testing.assert_close(slerp(a, b, 0.3), slerp(b, a, 0.7))


@pytest.mark.parametrize("angle", [1e-9, 1e-4, 0.1, 1.0, 3.0])
def test_theta_is_the_share_of_the_angle(angle: float) -> None:
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    for theta in (0.25, 0.5, 0.9):
        expected = [[math.cos(theta * angle), math.sin(theta * angle)]]
        found = slerp(a, b, theta)
        torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-7)


def test_rows_have_thetas_of_their_own() -> None:
    a, b = unit(3, seed=5), unit(3, seed=6)
    together = slerp(a, b, torch.tensor([0.0, 0.4, 1.0]))
    for row, theta in enumerate((0.0, 0.4, 1.0)):
        alone = slerp(a[row : row + 1], b[row : row + 1], theta)[0]
        torch.testing.assert_close(together[row], alone, rtol=0, atol=1e-6)


def test_opposite_and_equal_rows_are_finite() -> None:
    a = unit(2, seed=7)
    assert torch.isfinite(slerp(a, -a, 0.5)).all()
    torch.testing.assert_close(slerp(a, a, 0.5), a)


def test_noise_stays_as_loud_as_it_is() -> None:
    generator = torch.Generator().manual_seed(8)
    a, b = torch.randn(2, 1, 3, 64, 64, generator=generator)
    for theta in (0.2, 0.5, 0.8):
        assert float(slerp(a, b, theta).std()) == pytest.approx(1, abs=0.02)
    assert float((0.5 * a + 0.5 * b).std()) < 0.75, "linear mixing does not keep it"


def test_weighted_sums() -> None:
    a, b = unit(2, seed=9).split(1)
    both = torch.cat([a, b])
    torch.testing.assert_close(weighted(both, torch.tensor([1.0, 1.0])), slerp(a, b, 0.5)[0])
    torch.testing.assert_close(weighted(both, torch.tensor([2.0, 0.0])), a[0])
    scaled = torch.cat([10 * a, 20 * b])
    assert float(weighted(scaled, torch.tensor([1.0, 1.0])).norm()) == pytest.approx(15)


def test_negative_weights_turn_away() -> None:
    a, b = unit(2, seed=9).split(1)
    for on_a, on_b in ((2.0, -1.0), (-2.0, 1.0)):
        found = weighted(torch.cat([a, b]), torch.tensor([on_a, on_b]))
        torch.testing.assert_close(found, normalize(on_a * a + on_b * b, dim=1)[0])
