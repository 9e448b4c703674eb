import pytest
import torch
from diffusion_oracles import gaussian, network_of

from unclip.diffusion.analytic import (
    analytic_variance,
    interpolate_posterior_mse,
    measure_posterior_mse,
)
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample, sampling_grid
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import finish

STD, N = 0.3, 60_000
PROCESS = Process(DiffusionConfig(target="x0", variance="analytic"))
NETWORK = network_of(PROCESS, gaussian(STD))
OPTIONS = SamplingOptions(sampler="ancestral", steps=10, clip="none")
GRID = sampling_grid(PROCESS, OPTIONS)


def exact_mse(grid=GRID) -> torch.Tensor:
    """Posterior variance of x0 given x_t when x0 ~ N(0, STD²)."""
    return STD**2 * (1 - grid.alpha_bar) / (grid.alpha_bar * STD**2 + 1 - grid.alpha_bar)


def measured_mse() -> torch.Tensor:
    held_out = STD * Randomness([7], per_stream=N).normal(1)
    timesteps = GRID.timesteps.tolist()
    return measure_posterior_mse(
        PROCESS, NETWORK, held_out, timesteps, Randomness([8], per_stream=N)
    )


def run(posterior_mse: torch.Tensor | None, options: SamplingOptions = OPTIONS) -> float:
    x_T = Randomness([0], per_stream=N).normal(1)
    walk = sample(
        PROCESS,
        NETWORK,
        x_T,
        options,
        Randomness([1], per_stream=N),
        stage="prior",
        posterior_mse=posterior_mse,
    )
    return float(finish(walk).std())


def test_measured_error_is_the_posterior_variance() -> None:
    # A mean of N squared normals has relative deviation √(2/N) = 0.0058.
    torch.testing.assert_close(measured_mse(), exact_mse(), rtol=5 * 0.0058, atol=0)


def test_ten_steps_reproduce_the_deviation() -> None:
    # §4.4: 0.300 in 10 steps, where β̃ gives 0.209 and β 0.367 (test_samplers).
    assert run(measured_mse()) == pytest.approx(0.300, abs=0.003)
    assert run(torch.zeros(10)) == pytest.approx(0.209, abs=0.003)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_agrees_with_the_score_norm_form(schedule: str) -> None:
    """κ² + (√((1−ᾱ_t)/α'_t) − √(1−ᾱ_p−κ²))² (1 − (1−ᾱ_t) Γ_t), with κ² = β̃' (§4.4)."""
    table = Process(DiffusionConfig(schedule=schedule)).schedule
    grid = table.respace([0, 20, 150, 400, 700, 950])
    alpha_bar, previous, kappa = grid.alpha_bar, grid.previous_alpha_bar, grid.posterior_variance
    score_norm = 1 / (alpha_bar * STD**2 + 1 - alpha_bar)
    step = alpha_bar / previous
    factor = ((1 - alpha_bar) / step).sqrt() - (1 - previous - kappa).sqrt()
    wanted = kappa + factor.square() * (1 - (1 - alpha_bar) * score_norm)
    torch.testing.assert_close(
        analytic_variance(grid, exact_mse(grid)), wanted, rtol=1e-12, atol=1e-15
    )


def test_variance_stays_within_the_analytic_bounds() -> None:
    low, high = GRID.posterior_variance, GRID.beta / (1 - GRID.beta)
    torch.testing.assert_close(analytic_variance(GRID, torch.full((10,), -1.0).double()), low)
    torch.testing.assert_close(
        analytic_variance(GRID, torch.full((10,), 1e9).double()), high, rtol=1e-6, atol=0
    )


def test_one_measurement_serves_any_number_of_steps() -> None:
    finer = PROCESS.schedule.respace(range(0, 1000, 3))
    at = interpolate_posterior_mse(exact_mse(), GRID, GRID)
    torch.testing.assert_close(at, exact_mse())
    everywhere = interpolate_posterior_mse(exact_mse(finer), finer, PROCESS.schedule)
    torch.testing.assert_close(everywhere, exact_mse(PROCESS.schedule), rtol=0.01, atol=1e-5)
    assert run(everywhere) == pytest.approx(run(exact_mse()), rel=1e-3)
    single = PROCESS.schedule.respace([500])
    assert interpolate_posterior_mse(torch.ones(1).double(), single, GRID).tolist() == [1.0] * 10


def test_missing_or_misfit_measurements_are_named() -> None:
    with pytest.raises(OptionError, match="needs the posterior error measured on held-out data"):
        run(None)
    with pytest.raises(OptionError, match="measured at 7 levels, these options visit 10"):
        run(torch.ones(7))
