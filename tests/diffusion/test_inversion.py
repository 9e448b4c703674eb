import itertools

import pytest
import torch
from diffusion_oracles import Mixture, Prepared, gaussian, network_of, noises

from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, first_timestep, invert, sample
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
