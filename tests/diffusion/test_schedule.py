import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip.diffusion.schedule import Schedule, cosine, linear, zero_terminal_snr
from unclip.errors import OptionError

SCHEDULES = {"linear": linear(1000), "cosine": cosine(1000)}
subsets = st.sets(st.integers(0, 999), min_size=1, max_size=300).map(sorted)


def test_published_figures() -> None:
    # §4.1: √ᾱ_T 6.4e-3 and 4.9e-5, SNR 4.0e-5 and 2.4e-9, cosine β_1 4.1e-5.
    lin, cos = SCHEDULES["linear"], SCHEDULES["cosine"]
    assert float(lin.alpha[-1]) == pytest.approx(6.4e-3, rel=0.01)
    assert float(lin.snr[-1]) == pytest.approx(4.0e-5, rel=0.02)
    assert float(cos.alpha[-1]) == pytest.approx(4.9e-5, rel=0.01)
    assert float(cos.snr[-1]) == pytest.approx(2.4e-9, rel=0.02)
    assert float(cos.beta[0]) == pytest.approx(4.1e-5, rel=0.01)
    assert float(lin.beta[0]) == pytest.approx(1e-4, rel=1e-9)
    assert float(lin.beta[-1]) == pytest.approx(0.02, rel=1e-9)


def test_cosine_follows_its_curve_until_beta_is_capped() -> None:
    def curve(u: float) -> float:
        return math.cos(math.pi / 2 * (u + 0.008) / 1.008) ** 2

    wanted = torch.tensor([curve((i + 1) / 1000) / curve(0) for i in range(999)]).double()
    torch.testing.assert_close(SCHEDULES["cosine"].alpha_bar[:999], wanted, rtol=1e-6, atol=1e-7)
    assert float(SCHEDULES["cosine"].beta[-1]) == pytest.approx(0.999, rel=1e-12)


def test_linear_keeps_its_noise_when_t_changes() -> None:
    assert float(linear(250).alpha[-1]) == pytest.approx(6.4e-3, rel=0.15)
    with pytest.raises(OptionError, match="21 or more"):
        linear(20)


@pytest.mark.parametrize("name", SCHEDULES)
@settings(deadline=None, max_examples=50)
@given(kept=subsets)
def test_respacing_keeps_alpha_bar_and_rebuilds_beta(name: str, kept: list[int]) -> None:
    full = SCHEDULES[name]
    short = full.respace(kept)
    assert short.timesteps.tolist() == kept
    assert torch.equal(short.alpha_bar, full.alpha_bar[kept])
    rebuilt = torch.cumprod(1 - short.beta, dim=0)
    torch.testing.assert_close(rebuilt, short.alpha_bar, rtol=1e-10, atol=1e-16)
    assert torch.all(short.posterior_variance <= short.beta * (1 + 1e-12))
    again = short.respace(kept[::2])
    assert torch.equal(again.alpha_bar, full.respace(kept[::2]).alpha_bar)


@pytest.mark.parametrize("kept", [[], [5, 5], [9, 3], [1000], [-1, 4]])
def test_impossible_subsets_are_named(kept: list[int]) -> None:
    with pytest.raises(OptionError, match=r"increasing order, out of 0…999"):
        SCHEDULES["cosine"].respace(kept)


def test_posterior_by_bayes_rule() -> None:
    # q(x_{t−1} | x_t, x0) ∝ q(x_t | x_{t−1}) q(x_{t−1} | x0): precisions add.
    schedule = SCHEDULES["linear"].respace([3, 90, 400, 999])
    beta, previous = schedule.beta[1:], schedule.previous_alpha_bar[1:]
    precision = (1 - beta) / beta + 1 / (1 - previous)
    variance = 1 / precision
    torch.testing.assert_close(schedule.posterior_variance[1:], variance, rtol=1e-10, atol=0)
    x_t_scale = variance * (1 - beta).sqrt() / beta
    x0_scale = variance * previous.sqrt() / (1 - previous)
    torch.testing.assert_close(schedule.posterior_x_t_scale[1:], x_t_scale, rtol=1e-10, atol=0)
    torch.testing.assert_close(schedule.posterior_x0_scale[1:], x0_scale, rtol=1e-10, atol=0)
    assert schedule.posterior_x0_scale[0] == 1
    assert schedule.posterior_x_t_scale[0] == 0


def test_levels_lie_on_the_curve_of_log_snr() -> None:
    for schedule in SCHEDULES.values():
        curve = (2 * schedule.half_log_snr).sigmoid()
        torch.testing.assert_close(schedule.alpha_bar, curve, rtol=1e-9, atol=0)
        assert torch.all(schedule.half_log_snr.diff() < 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_zero_terminal_snr(name: str) -> None:
    full = SCHEDULES[name]
    zero = zero_terminal_snr(full)
    assert zero.alpha[-1] == 0
    assert zero.half_log_snr[-1] == -math.inf
    assert float(zero.alpha[0]) == pytest.approx(float(full.alpha[0]), rel=1e-12)
    theirs = torch.cumprod(1 - rescale_zero_terminal_snr(full.beta), dim=0)
    torch.testing.assert_close(zero.alpha_bar, theirs, rtol=1e-9, atol=1e-12)


def test_lengths_of_one() -> None:
    single = SCHEDULES["cosine"].respace([999])
    assert isinstance(single, Schedule)
    assert float(single.beta) == pytest.approx(1 - float(single.alpha_bar))
    assert torch.isfinite(single.log_posterior_variance).all()
