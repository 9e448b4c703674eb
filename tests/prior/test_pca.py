"""Principal components of a stream against scikit-learn, on all of it at once."""

from itertools import pairwise

import pytest
import torch
from sklearn.decomposition import PCA

from unclip.errors import DataError
from unclip.prior.pca import components_needed, lost, principal_components

D = 12


def data(n: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(n, D, generator=generator) @ torch.randn(D, D, generator=generator)
    return mixed * torch.logspace(0, -2, D) + 3.0


@pytest.mark.parametrize("size", [500, 64, 1])
def test_a_stream_gives_what_sklearn_finds_in_all_of_it(size: int) -> None:
    found, theirs = principal_components(data().split(size)), PCA().fit(data().double().numpy())
    n = len(data())
    assert found.mean.numpy() == pytest.approx(theirs.mean_)
    assert found.spectrum.numpy() == pytest.approx(theirs.explained_variance_ * (n - 1) / n)
    alignment = (found.components @ torch.from_numpy(theirs.components_).T).diagonal()
    torch.testing.assert_close(alignment.abs(), torch.ones(D, dtype=torch.float64))
    mine = found.project(data(), 5)
    theirs_projected = torch.from_numpy(theirs.transform(data().double().numpy()))[:, :5]
    torch.testing.assert_close(mine, theirs_projected * alignment[:5].sign())


def test_a_large_mean_costs_no_accuracy() -> None:
    """The naive E[x²] − E[x]² would lose half the digits."""
    near = principal_components(data().split(50))
    shifted = principal_components((data().double() + 1e7).split(50))
    torch.testing.assert_close(shifted.spectrum, near.spectrum, rtol=1e-5, atol=1e-6)


def test_components_come_by_decreasing_variance_with_fixed_signs() -> None:
    found = principal_components([data()])
    assert (found.spectrum.diff() <= 0).all()
    eye = torch.eye(D, dtype=torch.float64)
    torch.testing.assert_close(found.components @ found.components.T, eye)
    largest = found.components.abs().argmax(dim=1, keepdim=True)
    assert (found.components.gather(1, largest) > 0).all()


def test_the_error_of_a_reconstruction_falls_and_is_what_the_spectrum_says() -> None:
    found, vectors = principal_components([data()]), data().double()
    errors = [
        (found.reconstruct(vectors, keep) - vectors).square().sum(dim=1).mean()
        for keep in range(D + 1)
    ]
    assert all(later < earlier for earlier, later in pairwise(errors))
    total = (vectors - found.mean).square().sum(dim=1).mean()
    for keep in (0, 1, 5, D):
        assert float(errors[keep] / total) == pytest.approx(lost(found.spectrum, keep), abs=1e-9)


def test_components_needed_for_an_error() -> None:
    spectrum = torch.tensor([70.0, 20.0, 9.5, 0.5])
    assert components_needed(spectrum, 0.01) == 3
    assert components_needed(spectrum, 0.1) == 2
    assert components_needed(spectrum, 0.001) == 4
    assert lost(spectrum, 3) == pytest.approx(0.005)


def test_nothing_has_no_components() -> None:
    with pytest.raises(DataError, match="no embedding"):
        principal_components([])
