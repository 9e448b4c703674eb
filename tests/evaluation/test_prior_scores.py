import pytest
import torch

from unclip.evaluation.embeddings import effective_rank, prior_scores, spectrum


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def test_a_perfect_prior() -> None:
    real, text = unit(50, 8), unit(50, 8, seed=1)
    scores = prior_scores(real, real, text)
    assert scores["cosine to the true z_i"].value == pytest.approx(1)
    assert scores["mean squared error"].value == pytest.approx(0, abs=1e-12)
    assert scores["true z_i by drawn, R@1"].value == 1
    assert scores["rank of the true z_i, median share of all"].value == 0
    spread = scores["variance, as a share of the data's"]
    assert (spread.value, spread.standard_error) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
    assert scores["cosine to z_t"] == scores["cosine of the true z_i to z_t"]


def test_a_prior_that_hears_nothing_ranks_by_chance() -> None:
    scores = prior_scores(unit(400, 16), unit(400, 16, seed=1), unit(400, 16, seed=2))
    rank = scores["rank of the true z_i, median share of all"]
    assert abs(rank.value - 0.5) < 3 * rank.standard_error
    assert scores["cosine to the true z_i"].value == pytest.approx(
        scores["cosine to another image's z_i"].value, abs=0.06
    )


def test_a_collapsed_prior_is_seen() -> None:
    real, text = unit(60, 8), unit(60, 8, seed=1)
    scores = prior_scores(text, real, text)
    assert scores["cosine to z_t"].value > scores["cosine of the true z_i to z_t"].value + 0.5
    constant = prior_scores(real[:1].expand(60, 8), real, text)
    assert constant["variance, as a share of the data's"].value == pytest.approx(0, abs=1e-9)


def test_cosine_and_mean_squared_error_say_the_same_of_unit_vectors() -> None:
    scores = prior_scores(unit(30, 8), unit(30, 8, seed=1), unit(30, 8, seed=2))
    cosine = scores["cosine to the true z_i"].value
    assert scores["mean squared error"].value == pytest.approx((2 - 2 * cosine) / 8)


def test_spectrum_and_effective_rank() -> None:
    rows = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    shares = spectrum(rows * torch.tensor([2.0, 1.0, 1.0, 0.0]))
    assert shares.tolist() == pytest.approx([4 / 6, 1 / 6, 1 / 6, 0], abs=0.02)
    assert effective_rank(torch.full((7,), 1 / 7).double()) == pytest.approx(7)
    assert effective_rank(torch.tensor([1.0, 0.0])) == pytest.approx(1)
