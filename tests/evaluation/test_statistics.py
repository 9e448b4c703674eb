import json
import math

import numpy as np
import pytest
import torch

from unclip.evaluation.statistics import (
    Score,
    bootstrap,
    chance_of,
    corrected,
    mean,
    quotient,
    ratio,
    share,
)


def bits(*values: int) -> torch.Tensor:
    return torch.tensor(values).bool()


def test_a_share_has_the_binomial_standard_error() -> None:
    score = share(bits(1, 1, 1, 0))
    assert (score.value, score.n) == (0.75, 4)
    assert score.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("percent", "interval"),
    [(47.1, 3.1), (41.1, 3.0), (62.6, 3.0), (48.9, 3.1), (45.3, 3.1), (70.5, 2.8)],
)
def test_intervals_are_those_of_table_1(percent: float, interval: float) -> None:
    wins = torch.arange(1000) < round(10 * percent)
    assert round(100 * share(wins).interval, 1) == pytest.approx(interval, abs=0.051)


def test_a_mean_and_its_standard_error() -> None:
    score = mean(torch.tensor([1.0, 2.0, 6.0]))
    assert score.value == 3
    assert score.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / 3**0.5)


def test_a_ratio_of_paired_means() -> None:
    score = ratio(bits(1, 0, 0, 0), bits(1, 1, 0, 0))
    # ratio 1/2; residuals 1/2, −1/2, 0, 0 have variance 1/8; SE = sqrt(1/8 / 4) / (1/2)
    assert score.value == 0.5
    assert score.standard_error == pytest.approx((1 / 8) ** 0.5)
    same = ratio(bits(1, 1, 0), bits(1, 1, 0))
    assert (same.value, same.standard_error) == (1, 0)
    assert math.isnan(ratio(bits(1, 1), bits(0, 0)).value)


def test_the_error_of_a_ratio_is_the_spread_of_repeated_draws() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw() -> Score:
        real = torch.rand(400, generator=generator) < 0.8
        return ratio(real & (torch.rand(400, generator=generator) < 0.6), real)

    scores = [draw() for _ in range(300)]
    spread = np.std([score.value for score in scores])
    assert np.mean([score.standard_error for score in scores]) == pytest.approx(spread, rel=0.15)


def test_scores_are_corrected_for_chance() -> None:
    hits, real = bits(1, 1, 0, 0).repeat(10), bits(1, 1, 1, 0).repeat(10)
    assert corrected(hits, real, 0.25).value == pytest.approx((0.5 - 0.25) / (0.75 - 0.25))
    guessing = torch.arange(1000) % 10 == 0
    assert corrected(guessing, torch.ones(1000).bool(), 0.1).value == pytest.approx(0)


def test_an_evaluator_that_guesses_on_real_pictures_says_nothing() -> None:
    guessing = torch.arange(1000) % 10 == 0
    assert math.isnan(corrected(guessing, guessing, 0.1).value)
    assert math.isnan(corrected(guessing, ~guessing, 0.95).value)


def test_chance_of_several_right_candidates() -> None:
    assert chance_of(1, 1000, 10) == pytest.approx(0.01)
    assert chance_of(2, 4, 1) == pytest.approx(0.5)
    assert chance_of(3, 4, 2) == 1
    generator = torch.Generator().manual_seed(0)
    guessed = [(torch.randperm(20, generator=generator)[:5] < 3).any().item() for _ in range(4000)]
    assert np.mean(guessed) == pytest.approx(chance_of(3, 20, 5), abs=0.03)


def test_chance_may_differ_between_questions() -> None:
    hits, chance = bits(1, 0), torch.tensor([0.5, 0.25])
    assert corrected(hits, bits(1, 1), chance).value == pytest.approx((0.5 - 0.25) / (0.5 + 0.75))


def test_a_quotient_of_independent_figures() -> None:
    score = quotient(Score(6.0, 0.6, 100), Score(2.0, 0.1, 50))
    assert (score.value, score.n) == (3, 50)
    assert score.standard_error == pytest.approx(3 * math.hypot(0.6 / 6, 0.1 / 2))
    assert math.isnan(quotient(Score(1.0, 0.0, 2), Score(0.0, 1.0, 2)).value)


def test_the_bootstrap_knows_the_error_of_a_mean() -> None:
    values = torch.randn(500, generator=torch.Generator().manual_seed(3))
    error = bootstrap(lambda index: values[index].mean().item(), 500, draws=400)
    assert error == pytest.approx(values.std().item() / 500**0.5, rel=0.1)


def test_what_has_no_value_is_null_in_json() -> None:
    values = Score(math.nan, math.nan, 3).as_json()
    assert json.dumps(values, allow_nan=False)
    assert values == {"value": None, "standard_error": None, "n": 3}
