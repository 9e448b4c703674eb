import itertools

import pytest
import torch
from diffusion_oracles import Mixture, Prepared, gaussian, network_of, noises

from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import (
    SamplingOptions,
    first_timestep,
    invert,
    measure_x0_error,
    sample,
)
from unclip.types import finish


def round_trip(process: Process, network, x0, options: SamplingOptions, iterations: int = 0):
    x_T = finish(invert(process, network, x0, options, stage="test", iterations=iterations))
    walk = sample(process, network, x_T, options, Prepared([]), stage="test")
    return x_T, finish(walk)


def rms(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


def ddim(steps: int, **chosen) -> SamplingOptions:
    return SamplingOptions(sampler="ddim", steps=steps, clip="none", spacing="strided", **chosen)


def test_error_halves_as_steps_double() -> None:
    process = Process(DiffusionConfig())
    network = network_of(process, gaussian(0.3))
    x0 = 0.3 * noises(1, 500, 1)[0]
    errors = [rms(round_trip(process, network, x0, ddim(n))[1] - x0) for n in (50, 100, 200, 400)]
    ratios = [coarse / fine for coarse, fine in itertools.pairwise(errors)]
    assert all(1.8 < ratio < 2.3 for ratio in ratios), (errors, ratios)


def test_published_errors_of_the_toy() -> None:
    # §2: 0.026 at 50 steps and 0.005 at 250, on data of deviation 0.3.
    process = Process(DiffusionConfig())
    network = network_of(process, gaussian(0.3))
    x0 = 0.3 * noises(1, 5000, 1)[0]
    for steps, error in ((50, 0.026), (250, 0.005)):
        back = round_trip(process, network, x0, ddim(steps))[1]
        assert rms(back - x0) == pytest.approx(error, rel=0.25)


@pytest.mark.parametrize("target", ["noise", "x0", "v"])
def test_iterations_make_it_exact(target: str) -> None:
    # Modes this wide keep ε̂ smooth enough for every step to converge.
    process, mixture = Process(DiffusionConfig(target=target)), Mixture(std=0.35)
    network = network_of(process, mixture.denoise)
    x0 = mixture.draw(200, seed=0).double()
    plain = rms(round_trip(process, network, x0, ddim(50))[1] - x0)
    exact = rms(round_trip(process, network, x0, ddim(50), iterations=25)[1] - x0)
    assert plain > 1e-2
    assert exact < 1e-10


def test_latent_of_gaussian_data_is_standard_normal() -> None:
    process = Process(DiffusionConfig())
    network = network_of(process, gaussian(0.3))
    x0 = 0.3 * noises(1, 20_000, 1)[0]
    x_T, _ = round_trip(process, network, x0, ddim(250))
    assert float(x_T.std()) == pytest.approx(1, abs=0.03)
    # The flow of a Gaussian only scales.
    torch.testing.assert_close(x_T / x_T.std(), x0 / x0.std(), rtol=1e-6, atol=1e-6)


def test_249_of_250_steps() -> None:
    process = Process(DiffusionConfig())
    network = network_of(process, gaussian(0.3))
    x0 = 0.3 * noises(1, 50, 1)[0]
    all_of, most = ddim(250), ddim(250, skip=1)
    assert first_timestep(process, all_of) == 999
    assert first_timestep(process, most) == 995
    latent, shorter = (
        list(invert(process, network, x0, options, stage="test")) for options in (all_of, most)
    )
    assert (len(latent), len(shorter)) == (250, 249)
    assert torch.equal(latent[248].sample, shorter[248].sample)
    walk = list(sample(process, network, shorter[248].sample, most, Prepared([]), stage="test"))
    assert len(walk) == 249
    assert rms(walk[-1].sample - x0) < 0.006


def test_options_to_clip_do_not_touch_an_inversion() -> None:
    process = Process(DiffusionConfig())
    network = network_of(process, gaussian(3.0))
    x0 = 3 * noises(1, 50, 1)[0]
    clipping = ddim(20).model_copy(update={"clip": "static"})
    a, b = (finish(invert(process, network, x0, o, stage="test")) for o in (clipping, ddim(20)))
    assert torch.equal(a, b)


def test_flat_data_end_as_noise_if_the_first_step_adds_some() -> None:
    # Data that never vary have ε̂ = 0, and would come back to x_T = 0: an image's plain areas.
    process = Process(DiffusionConfig())
    network = network_of(process, lambda x, a, s: torch.full_like(x, 0.4))
    x0, (noise,) = torch.full((4000, 3), 0.4, dtype=torch.float64), noises(1, 4000, 3)
    options = ddim(50)
    bare = finish(invert(process, network, x0, options, stage="test"))
    x_T = finish(invert(process, network, x0, options, stage="test", noise=noise))
    assert float(bare.std()) < 1e-6
    torch.testing.assert_close(x_T, noise, rtol=0, atol=1e-3)
    back = finish(sample(process, network, x_T, options, Prepared([]), stage="test"))
    torch.testing.assert_close(back, x0)


def test_noise_of_the_first_step_does_not_show() -> None:
    process, mixture = Process(DiffusionConfig()), Mixture(std=0.35)
    network = network_of(process, mixture.denoise)
    x0 = mixture.draw(200, seed=0).double()
    (noise,) = noises(1, *x0.shape)
    options = ddim(250)
    for iterations, limit in ((0, 0.02), (60, 0.01)):
        x_T = finish(
            invert(process, network, x0, options, stage="t", iterations=iterations, noise=noise)
        )
        back = finish(sample(process, network, x_T, options, Prepared([]), stage="test"))
        assert rms(back - x0) < limit


def test_iterations_leave_the_noise_of_the_first_step() -> None:
    # Solved too, that step would take all noise back of which the network sees only half.
    process = Process(DiffusionConfig())
    network = network_of(process, lambda x, a, s: 0.4 + 0.5 * (x / a - 0.4))
    x0, (noise,) = torch.full((500, 3), 0.4, dtype=torch.float64), noises(1, 500, 3)

    def first(iterations: int) -> torch.Tensor:
        walk = invert(
            process, network, x0, ddim(50), stage="test", iterations=iterations, noise=noise
        )
        return next(walk).sample

    assert torch.equal(first(60), first(0))


def test_iterations_stop_when_nothing_moves() -> None:
    process, calls = Process(DiffusionConfig()), []
    exact = network_of(process, gaussian(0.3))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(int(t[0]))
        return exact(x, t)

    finish(invert(process, network, 0.3 * noises(1, 9, 1)[0], ddim(20), stage="t", iterations=500))
    assert len(calls) < 20 * 60


def test_iterations_stop_when_only_the_networks_rounding_moves() -> None:
    process, calls = Process(DiffusionConfig()), []
    exact = network_of(process, gaussian(0.3))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(int(t[0]))
        # Another error each time, so that no change is ever 0: as of a network in bfloat16.
        return exact(x, t) + 1e-5 * noises(1, *x.shape, seed=len(calls))[0]

    x0 = 0.3 * noises(1, 500, 1)[0].float()
    found = finish(invert(process, network, x0, ddim(20), stage="t", iterations=500))
    assert len(calls) < 20 * 40
    reference = finish(invert(process, exact, x0, ddim(20), stage="t", iterations=100))
    assert rms(found - reference) < 0.05


def test_an_error_that_is_allowed_for_becomes_noise() -> None:
    # A network that draws one picture whatever it sees, 0.1 away from the one that is inverted.
    # With s = σ/α and the error r, dx/ds = r s / (δ² + s²) leads to x_T = r/δ: of deviation 1 where
    # δ is the true error, and of r/σ_0, fifteen times that, where the network is believed.
    process = Process(DiffusionConfig(target="x0"))
    drawn, error = noises(2, 200, 9)
    x0 = drawn + 0.1 * error

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return drawn

    def inverted(x0_error: float) -> torch.Tensor:
        options = ddim(1000, x0_error=x0_error)
        return finish(invert(process, network, x0, options, stage="test", iterations=60))

    torch.testing.assert_close(inverted(0.1), error, rtol=0, atol=0.05)
    torch.testing.assert_close(inverted(0.2), error / 2, rtol=0, atol=0.05)
    assert float(inverted(0.0).std()) > 10
    options, noise = ddim(1000), torch.zeros_like(x0)
    found = measure_x0_error(process, network, x0, options, noise)
    assert found == pytest.approx(rms(0.1 * error))


@pytest.mark.parametrize("x0_error", [0.05, 0.5])
def test_round_trips_stay_exact_where_the_network_is_doubted(x0_error: float) -> None:
    process, mixture = Process(DiffusionConfig(target="x0")), Mixture(std=0.35)
    network = network_of(process, mixture.denoise)
    x0 = mixture.draw(200, seed=0).double()
    back = round_trip(process, network, x0, ddim(50, x0_error=x0_error), iterations=60)[1]
    assert rms(back - x0) < 1e-8
