"""Distances against closed forms, reference libraries and exact small cases (§8, invariant 15)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel
from sklearn.neighbors import NearestNeighbors

from unclip.errors import OptionError
from unclip.evaluation import distances
from unclip.evaluation.distances import (
    Moments,
    cmmd,
    fid,
    frechet,
    kid,
    mean_pairwise_distance,
    mmd,
    precision_recall,
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 1000))
def test_moments_do_not_depend_on_how_they_are_fed(sizes: list[int], seed: int) -> None:
    rows = 3 + 100 * normal(sum(sizes) + 2, 5, seed=seed)
    moments = Moments(5)
    for part in rows.split([*sizes, 2]):
        moments.add(part)
    assert moments.count == len(rows)
    assert np.allclose(moments.mean, rows.double().mean(dim=0))
    assert np.allclose(moments.covariance, np.cov(rows.double().numpy().T), rtol=1e-9)


def test_moments_survive_features_far_from_nought() -> None:
    rows = 1e4 + normal(2000, 3).double()
    assert np.allclose(Moments.of(rows).covariance, np.cov(rows.numpy().T), rtol=1e-8)


def gaussian(mean: torch.Tensor, covariance: torch.Tensor) -> Moments:
    moments = Moments(len(mean))
    moments.count, moments.mean, moments._scatter = 2, mean, covariance
    return moments


def test_fid_of_gaussians_with_one_basis_has_a_closed_form() -> None:
    basis = torch.linalg.qr(normal(6, 6).double()).Q
    a, b = normal(6, seed=1).double().square(), normal(6, seed=2).double().square()
    mean = normal(6, seed=3).double()
    ours = frechet(
        gaussian(torch.zeros(6).double(), basis @ a.diag() @ basis.T),
        gaussian(mean, basis @ b.diag() @ basis.T),
    )
    assert ours == pytest.approx(
        (mean.square().sum() + (a.sqrt() - b.sqrt()).square().sum()).item()
    )


def test_fid_agrees_with_the_usual_formula() -> None:
    x, y = normal(400, 12), normal(400, 12, seed=1) @ normal(12, 12, seed=2) + 0.3
    a, b = np.cov(x.double().numpy().T), np.cov(y.double().numpy().T)
    root = sqrtm(a @ b)
    difference = (x.double().mean(dim=0) - y.double().mean(dim=0)).square().sum().item()
    theirs = difference + np.trace(a + b - 2 * np.real(root))
    assert fid(x, y, draws=2).value == pytest.approx(theirs, rel=1e-8)


def test_fid_of_a_set_with_itself_is_nought_even_where_singular() -> None:
    few = normal(20, 64)  # covariance of rank 19
    assert abs(frechet(Moments.of(few), Moments.of(few))) < 1e-5


def test_fid_measures_the_distance_of_two_gaussians() -> None:
    x, y = normal(20_000, 4), 2 + 3 * normal(20_000, 4, seed=1)
    score = fid(x, y)
    assert score.value == pytest.approx(4 * (4 + 4), rel=0.03)  # per dimension 2² and (3−1)²
    assert 0 < score.standard_error < 1
    assert abs(score.value - 32) < 4 * score.standard_error


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel() -> None:
    x, y = normal(40, 7), 0.5 + normal(40, 7, seed=1)
    settings = {"degree": 3, "gamma": 1 / 7, "coef0": 1}
    xx, yy, xy = (
        polynomial_kernel(a.double().numpy(), b.double().numpy(), **settings)
        for a, b in ((x, x), (y, y), (x, y))
    )
    n = len(x)
    theirs = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (n * (n - 1)) - 2 * xy.mean()
    assert kid(x, y).value == pytest.approx(theirs, rel=1e-9)


def test_kid_of_two_halves_of_one_set_centres_on_nought() -> None:
    scores = [kid(normal(60, 5, seed=2 * i), normal(60, 5, seed=2 * i + 1)) for i in range(40)]
    values = np.array([score.value for score in scores])
    assert abs(values.mean()) < 3 * values.std() / 40**0.5
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("unbiased", [True, False])
def test_the_jackknife_leaves_each_sample_out_in_turn(unbiased: bool) -> None:
    x, y = normal(9, 3), 1 + normal(11, 3, seed=1)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (a @ b.T + 1) ** 2

    def value(a: torch.Tensor, b: torch.Tensor) -> float:
        return mmd(a, b, kernel, unbiased=unbiased).value

    def without(rows: torch.Tensor, i: int) -> torch.Tensor:
        return torch.cat([rows[:i], rows[i + 1 :]])

    variance = 0.0
    for parts in (
        [value(without(x, i), y) for i in range(len(x))],
        [value(x, without(y, i)) for i in range(len(y))],
    ):
        variance += (len(parts) - 1) * np.var(parts)
    score = mmd(x, y, kernel, unbiased=unbiased)
    assert score.standard_error == pytest.approx(variance**0.5, rel=1e-9)


def test_the_standard_error_of_kid_is_the_spread_of_repeated_draws() -> None:
    scores = [
        kid(normal(80, 4, seed=2 * i), 0.7 + normal(80, 4, seed=2 * i + 1)) for i in range(120)
    ]
    spread = np.std([score.value for score in scores])
    told = np.mean([score.standard_error for score in scores])
    assert told == pytest.approx(spread, rel=0.2)


def test_cmmd_is_a_thousand_times_the_biased_mmd_of_unit_vectors() -> None:
    x, y = normal(30, 6), 1 + normal(30, 6, seed=1)
    a, b = (torch.nn.functional.normalize(v.double(), dim=1).numpy() for v in (x, y))
    gamma = 1 / (2 * 10**2)
    theirs = 1000 * (
        rbf_kernel(a, a, gamma).mean()
        + rbf_kernel(b, b, gamma).mean()
        - 2 * rbf_kernel(a, b, gamma).mean()
    )
    assert cmmd(x, y).value == pytest.approx(theirs, rel=1e-8)


def test_cmmd_is_symmetric_and_nought_on_identical_sets() -> None:
    x, y = normal(50, 6), 1 + normal(50, 6, seed=1)
    assert cmmd(x, y).value == pytest.approx(cmmd(y, x).value, rel=1e-12)
    assert cmmd(x, y).standard_error == pytest.approx(cmmd(y, x).standard_error, rel=1e-9)
    assert abs(cmmd(x, x).value) < 1e-9


def test_precision_and_recall_are_one_on_identical_sets_and_nought_far_away() -> None:
    x = normal(100, 4)
    assert [score.value for score in precision_recall(x, x)] == [1, 1]
    assert [score.value for score in precision_recall(x, x + 100)] == [0, 0]


def test_precision_and_recall_agree_with_nearest_neighbours() -> None:
    real, fake = normal(120, 3), 1.2 * normal(120, 3, seed=1) + 0.5

    def inside(samples: torch.Tensor, centres: torch.Tensor) -> float:
        fitted = NearestNeighbors(n_neighbors=4).fit(centres.double().numpy())
        radii = fitted.kneighbors(centres.double().numpy())[0][:, 3]
        distances = np.linalg.norm(
            samples.double().numpy()[:, None] - centres.double().numpy()[None], axis=2
        )
        return (distances <= radii).any(axis=1).mean()

    precision, recall = precision_recall(real, fake)
    assert precision.value == pytest.approx(inside(fake, real))
    assert recall.value == pytest.approx(inside(real, fake))
    assert 0 < precision.value < recall.value < 1


def test_a_narrow_set_is_precise_but_recalls_little() -> None:
    precision, recall = precision_recall(normal(300, 2), 0.1 * normal(300, 2, seed=1))
    assert precision.value > 0.9
    assert recall.value < 0.2


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(50, 3), 0.4 + normal(50, 3, seed=1)
    whole = kid(x, y), cmmd(x, y), precision_recall(x, y)
    monkeypatch.setattr(distances, "BLOCK", 7)
    parts = kid(x, y), cmmd(x, y), precision_recall(x, y)
    for a, b in zip((*whole[:2], *whole[2]), (*parts[:2], *parts[2]), strict=True):
        assert a.value == pytest.approx(b.value, rel=1e-9)
        assert a.standard_error == pytest.approx(b.standard_error, rel=1e-7)


@pytest.mark.parametrize("distance", [fid, kid, cmmd, precision_recall])
def test_sets_of_unequal_size_are_refused(distance) -> None:
    with pytest.raises(OptionError, match="equal size, not 10 and 12"):
        distance(normal(10, 3), normal(12, 3))
    with pytest.raises(OptionError, match="two images at least"):
        distance(normal(1, 3), normal(1, 3))


def test_pairwise_distance() -> None:
    z = torch.nn.functional.normalize(normal(20, 5), dim=1)
    assert mean_pairwise_distance(z) == pytest.approx(pdist(z.numpy(), "cosine").mean(), rel=1e-5)
