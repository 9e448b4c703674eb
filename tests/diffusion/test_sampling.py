"""What every sampler promises: noise, types, steps, timesteps and errors."""

import pytest
import torch
from diffusion_oracles import Prepared, gaussian, network_of, noises, wavy
from pydantic import ValidationError

from unclip.diffusion.guidance import guided
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import (
    SamplingOptions,
    first_timestep,
    invert,
    sample,
    sampling_grid,
)
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import Step, finish

PROCESS = Process(DiffusionConfig())
SAMPLERS = ["ancestral", "ddim", "dpm++", "unipc"]


def run(options: SamplingOptions, x_T: torch.Tensor, randomness, network=None) -> list[Step]:
    walk = sample(PROCESS, network or wavy(), x_T, options, randomness, stage="decoder")
    return list(walk)


@pytest.mark.parametrize(
    ("chosen", "draws"),
    [
        ({"sampler": "ancestral"}, 6),
        ({"sampler": "ddim"}, 0),
        ({"sampler": "ddim", "eta": 0.3}, 6),
        ({"sampler": "dpm++"}, 0),
        ({"sampler": "unipc"}, 0),
    ],
)
def test_noise_is_drawn_once_a_step_and_never_at_the_last(chosen: dict, draws: int) -> None:
    x_T, *prepared = noises(7, 2, 3, 4, 4)
    randomness = Prepared(prepared)
    steps = run(SamplingOptions(steps=7, **chosen), x_T, randomness)
    assert randomness.drawn == draws
    assert [(step.stage, step.index, step.total) for step in steps] == [
        ("decoder", i, 7) for i in range(7)
    ]
    assert torch.equal(steps[-1].sample, steps[-1].x0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_network_is_told_the_original_timesteps(sampler: str) -> None:
    told = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        assert t.dtype == torch.int64
        assert t.shape == (2,)
        told.append(t.tolist())
        return torch.zeros_like(x)

    options = SamplingOptions(sampler=sampler, steps=9, spacing="strided")
    run(options, torch.zeros(2, 3), Randomness([1, 2]), network)
    assert told == [[t, t] for t in (999, 874, 749, 624, 500, 375, 250, 125, 0)]


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_arithmetic_is_float32_or_as_wide_as_x_t(sampler: str, dtype: torch.dtype) -> None:
    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return wavy()(x, t).bfloat16()

    options = SamplingOptions(sampler=sampler, steps=3)
    steps = run(options, torch.ones(1, 4, dtype=dtype), Randomness([1]), network)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert {step.sample.dtype for step in steps} == {wanted}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler: str) -> None:
    options = SamplingOptions(sampler=sampler, steps=5)
    (x_T,) = noises(1, 3, 2, 4, 4, dtype=torch.float32)
    together = run(options, x_T, Randomness([5, 6, 7]))[-1].sample
    alone = run(options, x_T[1:2], Randomness([6]))[-1].sample
    torch.testing.assert_close(together[1:2], alone, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_graph_is_kept_and_the_callers_grad_mode_is_left_alone(sampler: str) -> None:
    weight = torch.ones(1, requires_grad=True)
    modes = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        return weight * wavy()(x, t)

    options = SamplingOptions(sampler=sampler, steps=3)
    walk = sample(PROCESS, network, torch.ones(1, 4), options, Randomness([1]), stage="prior")
    for step in walk:
        assert torch.is_grad_enabled()
        assert not step.sample.requires_grad
        assert not step.sample.is_inference()
    assert modes == [False] * 3


def test_closing_a_sampler_cancels_it() -> None:
    calls = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(t)
        return torch.zeros_like(x)

    options = SamplingOptions(steps=100)
    walk = sample(PROCESS, network, torch.ones(1, 4), options, Randomness([1]), stage="prior")
    next(walk)
    walk.close()
    assert len(calls) == 1


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_is_the_denoised_start(sampler: str) -> None:
    options = SamplingOptions(sampler=sampler, steps=1, clip="none")
    (x_T,) = noises(1, 2, 3)
    network = network_of(PROCESS, gaussian(0.3))
    (step,) = run(options, x_T, Prepared([]), network)
    t = torch.full((2,), first_timestep(PROCESS, options))
    assert t[0] == (999 if sampler in ("ancestral", "ddim") else 995)
    wanted = PROCESS.interpret(network(x_T, t), x_T, t).x0
    torch.testing.assert_close(step.sample, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("start", [0.2, 0.5])
def test_starting_from_an_intermediate_level(sampler: str, start: float) -> None:
    options = SamplingOptions(sampler=sampler, steps=20, start=start, clip="none")
    first = first_timestep(PROCESS, options)
    assert 0.9 * 1000 * start < first < 1000 * start
    assert len(sampling_grid(PROCESS, options)) == 20
    # Data noised to that level and walked back have the data's deviation.
    n = 20_000
    x0, noise = 0.3 * Randomness([0], n).normal(1), Randomness([1], n).normal(1)
    x = PROCESS.add_noise(x0, torch.full((n,), first), noise)
    network = network_of(PROCESS, gaussian(0.3))
    result = run(options, x, Randomness([2], n), network)[-1].sample
    assert float(result.std()) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ending_early_gives_the_expectation_there(sampler: str) -> None:
    options = SamplingOptions(sampler=sampler, steps=40, end=0.2, clip="none")
    grid = sampling_grid(PROCESS, options)
    assert int(grid.timesteps[0]) == 200
    n = 20_000
    network = network_of(PROCESS, gaussian(0.3))
    x_T = Randomness([0], n).normal(1)
    result = run(options, x_T, Randomness([1], n), network)[-1].sample
    # E[x0 | x_t] of N(0, 0.3²) deviates less than x0, by the share of signal in x_t.
    signal = float(0.3 * grid.alpha[0]) ** 2
    wanted = 0.3 * (signal / (signal + float(grid.sigma[0]) ** 2)) ** 0.5
    assert wanted < 0.21
    assert float(result.std()) == pytest.approx(wanted, rel=0.03)


def test_an_end_that_is_no_end_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"end 0\.5 is not below start 0\.5"):
        SamplingOptions(start=0.5, end=0.5)
    with pytest.raises(OptionError, match="60 steps of only 50"):
        sampling_grid(PROCESS, SamplingOptions(steps=60, start=0.5, end=0.45))


def test_default_spacing_suits_the_sampler() -> None:
    def timesteps(**chosen) -> list[int]:
        return sampling_grid(PROCESS, SamplingOptions(**chosen)).timesteps.tolist()

    assert timesteps(sampler="ddim", steps=27) == list(range(0, 989, 38))
    assert timesteps(sampler="ddim", steps=64)[-1] == 999
    assert timesteps(sampler="ancestral", steps=64)[-1] == 999
    assert timesteps(sampler="dpm++", steps=20)[-1] < 999
    assert timesteps(sampler="ddim", steps=3, spacing=(0, 5, 997)) == [0, 5, 997]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"steps": 64, "spacing": "integer"}, "no integer stride makes 64 steps of 1000"),
        ({"steps": 1001}, "1001 steps of only 1000 noise levels"),
        ({"steps": 200, "start": 0.1}, "200 steps of only 100 noise levels"),
        ({"steps": 2, "spacing": (3, 1000)}, "out of 0…999"),
        ({"steps": 2, "spacing": (7, 3)}, "increasing order"),
    ],
)
def test_impossible_options_are_named(chosen: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(SamplingOptions(**chosen), torch.zeros(1, 3), Randomness([1]))


@pytest.mark.parametrize(
    "chosen",
    [
        {"steps": 3, "spacing": (1, 2)},
        {"steps": 0},
        {"steps": 5, "skip": 5},
        {"guidance_interval": (0.8, 0.2)},
        {"eta": -1},
        {"sampler": "euler"},
        {"stepz": 3},
    ],
)
def test_contradictory_options_are_refused(chosen: dict) -> None:
    with pytest.raises(ValidationError):
        SamplingOptions(**chosen)


def test_options_survive_json() -> None:
    options = SamplingOptions(steps=2, spacing=(4, 9), guidance_interval=(0.1, 0.9))
    assert SamplingOptions.model_validate_json(options.model_dump_json()) == options


def test_clipping_bounds_the_estimate() -> None:
    (x_T,) = noises(1, 2, 8)
    for clip, bound in (("static", 1.0), ("static", 10.0), ("dynamic", 1.0)):
        options = SamplingOptions(steps=5, clip=clip, bound=bound)
        steps = run(options, 50 * x_T, Randomness([1, 2]))
        assert max(float(step.x0.abs().max()) for step in steps) == pytest.approx(bound)


def test_inversion_yields_steps() -> None:
    options = SamplingOptions(sampler="ddim", steps=4)
    walk = invert(PROCESS, wavy(), torch.zeros(1, 3), options, stage="decoder")
    assert [(step.stage, step.index, step.total) for step in walk] == [
        ("decoder", i, 4) for i in range(4)
    ]
    assert finish(invert(PROCESS, wavy(), torch.zeros(1, 3), options, stage="x")).shape == (1, 3)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("clip", ["none", "static", "dynamic"])
@pytest.mark.parametrize("variance", ["learned_range", "fixed_small"])
def test_no_step_waits_for_the_device(sampler: str, clip: str, variance: str) -> None:
    """Tensors on the meta device have no values: whoever asks for one fails."""
    process = Process(DiffusionConfig(variance=variance))

    def one(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return wavy(process.outputs)(x, t)

    network = guided(one, one, 2.0, (0.1, 0.6), mixed=3)
    options = SamplingOptions(sampler=sampler, steps=5, clip=clip, eta=0.5, guidance=2.0)
    x_T = torch.empty(2, 3, 4, 4, device="meta")
    steps = list(sample(process, network, x_T, options, Randomness([1, 2]), stage="decoder"))
    assert steps[-1].sample.shape == x_T.shape


@pytest.mark.parametrize(("start", "steps"), [(0.4, 3), (0.3, 2), (0.5, 2), (0.5, 7)])
def test_few_ddim_steps_begin_where_start_says(start: float, steps: int) -> None:
    options = SamplingOptions(sampler="ddim", steps=steps, start=start)
    assert first_timestep(PROCESS, options) == round(start * 1000) - 1
