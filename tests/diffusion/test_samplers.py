"""Samplers on data whose exact denoiser is known, and on each other."""

import math

import pytest
import torch
from diffusion_oracles import Mixture, Prepared, gaussian, network_of, noises, wavy

from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import finish

STD = 0.3


def gaussian_std(sampler: str, steps: int, variance: str = "fixed_small", **options) -> float:
    """Standard deviation that a sampler gives data of deviation 0.300, from 60,000 samples."""
    process = Process(DiffusionConfig(target="x0", variance=variance))
    n = 60_000
    x_T = Randomness([0], per_stream=n).normal(1)
    chosen = SamplingOptions(sampler=sampler, steps=steps, clip="none", **options)
    network = network_of(process, gaussian(STD))
    walk = sample(process, network, x_T, chosen, Randomness([1], per_stream=n), stage="test")
    return float(finish(walk).std())


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        # §4.4 (10 steps) and §4.5 (20 steps); Monte Carlo error 0.0009.
        (0.209, {"sampler": "ancestral", "steps": 10}),
        (0.367, {"sampler": "ancestral", "steps": 10, "variance": "fixed_large"}),
        (0.233, {"sampler": "ddim", "steps": 10, "spacing": "strided"}),
        (0.305, {"sampler": "dpm++", "steps": 20}),
        (0.300, {"sampler": "unipc", "steps": 20}),
    ],
)
def test_deviation_of_a_gaussian(wanted: float, chosen: dict) -> None:
    assert gaussian_std(**chosen) == pytest.approx(wanted, abs=0.003)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_another_variance_than_the_networks_own_can_be_chosen(variance: str) -> None:
    runs = []
    for own in ("learned_range", variance):
        process = Process(DiffusionConfig(variance=own))
        options = SamplingOptions(steps=10, variance=variance)
        x_T, *prepared = noises(10, 50, 1)
        network = network_of(process, gaussian(STD), fraction=0.5)
        walk = sample(process, network, x_T, options, Prepared(prepared), stage="test")
        runs.append(finish(walk))
    torch.testing.assert_close(*runs)


def test_a_variance_that_was_not_learned_is_refused() -> None:
    process = Process(DiffusionConfig())
    x_T, *prepared = noises(2, 5, 1)
    options = SamplingOptions(steps=2, variance="learned_range")
    network = network_of(process, gaussian(STD))
    with pytest.raises(OptionError, match="learned no variance"):
        finish(sample(process, network, x_T, options, Prepared(prepared), stage="test"))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_on_a_gaussian_to_rounding(eta: float) -> None:
    """Every step is linear here: x_p = (√ᾱ_p k + √(1−ᾱ_p−σ²) (1−√ᾱ k)/√(1−ᾱ)) x + σ z (§4.2)."""
    process = Process(DiffusionConfig())
    options = SamplingOptions(sampler="ddim", steps=40, eta=eta, clip="none")
    x_T, *prepared = noises(40, 50, 1)
    walk = sample(
        process,
        network_of(process, gaussian(STD)),
        x_T,
        options,
        Prepared(prepared),
        stage="test",
    )
    alpha_bar = process.schedule.alpha_bar.tolist()
    x = x_T
    for t, noise in zip(range(975, 0, -25), prepared, strict=True):
        now, after = alpha_bar[t], alpha_bar[t - 25]
        keep = math.sqrt(now) * STD**2 / (now * STD**2 + 1 - now)
        sigma = eta * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
        towards = (1 - math.sqrt(now) * keep) / math.sqrt(1 - now)
        x = (math.sqrt(after) * keep + math.sqrt(1 - after - sigma**2) * towards) * x
        x = x + sigma * noise
    last = math.sqrt(alpha_bar[0]) * STD**2 / (alpha_bar[0] * STD**2 + 1 - alpha_bar[0])
    torch.testing.assert_close(finish(walk), last * x, rtol=1e-9, atol=1e-12)


def test_even_log_snr_is_what_the_solver_needs() -> None:
    strided = gaussian_std("dpm++", 20, spacing="strided")
    assert abs(strided - STD) > 5 * abs(gaussian_std("dpm++", 20) - STD)


@pytest.mark.parametrize("target", ["noise", "x0", "v"])
@pytest.mark.parametrize("kept", [12, 250])
def test_ddim_with_full_noise_is_ancestral_sampling(target: str, kept: int) -> None:
    process = Process(DiffusionConfig(target=target))
    x_T, *prepared = noises(kept, 2, 3, 4, 4)
    runs = []
    for chosen in ({"sampler": "ancestral"}, {"sampler": "ddim", "eta": 1.0}):
        options = SamplingOptions(steps=kept, spacing="strided", clip="static", **chosen)
        walk = sample(process, wavy(), x_T, options, Prepared(prepared), stage="test")
        runs.append([step.sample for step in walk])
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def sliced_wasserstein(a: torch.Tensor, b: torch.Tensor) -> float:
    angle = torch.arange(32) * math.pi / 32
    directions = torch.stack([angle.cos(), angle.sin()])
    return float(((a @ directions).sort(0)[0] - (b @ directions).sort(0)[0]).abs().mean())


@pytest.mark.parametrize(
    "chosen",
    [
        {"sampler": "ancestral", "steps": 250},
        {"sampler": "ancestral", "steps": 250, "variance": "learned_range", "target": "noise"},
        {"sampler": "ddim", "steps": 125, "target": "v", "schedule": "linear"},
        {"sampler": "ddim", "steps": 100},
        {"sampler": "ddim", "steps": 125, "eta": 0.5, "target": "noise"},
        {"sampler": "dpm++", "steps": 40, "target": "v"},
        {"sampler": "unipc", "steps": 25, "target": "noise"},
        {"sampler": "unipc", "steps": 25, "guidance": 2.0},
    ],
    ids=lambda chosen: "-".join(map(str, chosen.values())),
)
def test_a_mixture_in_the_plane_is_reproduced(chosen: dict) -> None:
    chosen = {"target": "x0", "variance": "fixed_small", "schedule": "cosine", **chosen}
    names = ("target", "variance", "schedule")
    process = Process(DiffusionConfig(**{name: chosen.pop(name) for name in names}))
    mixture, n = Mixture(), 3000
    options = SamplingOptions(clip="none", **chosen)
    walk = sample(
        process,
        network_of(process, mixture.denoise, fraction=0.5),
        Randomness([1], per_stream=n).normal(2),
        options,
        Randomness([2], per_stream=n),
        stage="test",
    )
    x = finish(walk)
    reference = mixture.draw(n, seed=100)
    # What two exact draws differ by: the sampling error that the bound is calibrated on.
    floor = max(sliced_wasserstein(mixture.draw(n, seed=s), reference) for s in range(8))
    assert sliced_wasserstein(x, reference) < 1.5 * floor
    deviation = (mixture.weights * (1 - mixture.weights) / n).sqrt()
    assert torch.all((mixture.mode_weights(x) - mixture.weights).abs() < 4 * deviation)
    # A sampler that only finds the modes, or only their span, would fail.
    spread = (x - mixture.centres[torch.cdist(x, mixture.centres).argmin(1)]).std()
    assert float(spread) == pytest.approx(mixture.std, rel=0.06)


def test_a_changed_variance_changes_only_the_noise() -> None:
    process = Process(DiffusionConfig(variance="learned_range"))
    x_T, *prepared = noises(6, 2, 3, 4, 4, dtype=torch.float32)
    silent = [torch.zeros_like(noise) for noise in prepared]

    def run(fraction: float, noise: list, **chosen) -> torch.Tensor:
        options = SamplingOptions(steps=6, spacing="strided", **chosen)
        network = network_of(process, gaussian(STD), fraction)
        return finish(sample(process, network, x_T, options, Prepared(noise), stage="test"))

    assert torch.equal(run(0.0, prepared, sampler="ddim"), run(1.0, prepared, sampler="ddim"))
    assert torch.equal(run(0.0, silent), run(1.0, silent))
    assert not torch.equal(run(0.0, prepared), run(1.0, prepared))


def test_learned_range_spans_the_fixed_variances() -> None:
    x_T, *prepared = noises(9, 2, 3, 4, 4)

    def run(variance: str, fraction: float) -> torch.Tensor:
        process = Process(DiffusionConfig(variance=variance))
        network = network_of(process, gaussian(STD), fraction)
        options = SamplingOptions(steps=9)
        return finish(sample(process, network, x_T, options, Prepared(prepared), stage="test"))

    low, high = run("learned_range", 0.0), run("learned_range", 1.0)
    torch.testing.assert_close(low, run("fixed_small", 0.5), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(high, run("fixed_large", 0.5), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm++", "unipc"])
@pytest.mark.parametrize("spacing", ["trailing", "log_snr"])
@pytest.mark.parametrize("target", ["x0", "v"])
def test_zero_terminal_snr(sampler: str, spacing: str, target: str) -> None:
    process = Process(DiffusionConfig(target=target, schedule="linear", zero_terminal_snr=True))
    # Samplers of first order, and β̃, need more steps than the solvers.
    steps = 150 if sampler in ("ancestral", "ddim") else 25
    options = SamplingOptions(sampler=sampler, spacing=spacing, steps=steps, clip="none")
    x_T = Randomness([0], per_stream=20_000).normal(1)
    network = network_of(process, lambda x, a, s: 0.7 + gaussian(STD)(x - 0.7 * a, a, s))
    walk = sample(process, network, x_T, options, Randomness([1], per_stream=20_000), stage="test")
    samples = [step.sample for step in walk]
    assert all(torch.isfinite(x).all() for x in samples)
    assert float(samples[-1].mean()) == pytest.approx(0.7, abs=0.01)
    assert float(samples[-1].std()) == pytest.approx(STD, abs=0.04)
