"""Step-by-step agreement with diffusers 0.37.1 on injected noise.

Their tables are float32. Where they can be replaced they are, by our float64 ones, so that the
algorithms are compared and not the tables; the tables are compared in one test of their own.
DPM-Solver++ rounds x to float32 at every step, and UniPC its weights: there the bound is looser.
"""

import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm, scheduling_unclip
from diffusion_oracles import Prepared, noises, wavy

from unclip.diffusion.clipping import dynamic_threshold
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.sampling import SamplingOptions, sample, sampling_grid
from unclip.types import Step

THEIR_TARGET = {"noise": "epsilon", "x0": "sample", "v": "v_prediction"}
THEIR_SCHEDULE = {
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
}
SHAPE = (2, 3, 4, 4)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def ours(process: Process, options: SamplingOptions, x_T, randomness) -> list[Step]:
    network = wavy(process.outputs)
    return list(sample(process, network, x_T, options, randomness, stage="test"))


def exact_tables(scheduler, process: Process):
    scheduler.betas = process.schedule.beta
    scheduler.alphas = 1 - process.schedule.beta
    scheduler.alphas_cumprod = process.schedule.alpha_bar
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    scheduler.final_alpha_cumprod = scheduler.one
    return scheduler


def inject(monkeypatch: pytest.MonkeyPatch, module, prepared: list) -> None:
    queue = iter(prepared)
    monkeypatch.setattr(module, "randn_tensor", lambda *args, **kwargs: next(queue))


def assert_same(steps: list[Step], theirs: list, tolerance: float) -> None:
    assert len(steps) == len(theirs)
    for step, (x, x0) in zip(steps, theirs, strict=True):
        torch.testing.assert_close(step.sample, x.to(step.sample), rtol=tolerance, atol=tolerance)
        if x0 is not None:
            torch.testing.assert_close(step.x0, x0, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("target", ["noise", "x0", "v"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large", "learned_range"])
def test_ddpm(monkeypatch, schedule: str, target: str, variance: str) -> None:
    process = Process(DiffusionConfig(schedule=schedule, target=target, variance=variance))
    options = SamplingOptions(sampler="ancestral", steps=12, clip="static")
    x_T, *prepared = noises(12, *SHAPE)
    inject(monkeypatch, scheduling_ddpm, prepared)
    scheduler = diffusers.DDPMScheduler(
        variance_type=variance,
        prediction_type=THEIR_TARGET[target],
        clip_sample=True,
        **THEIR_SCHEDULE[schedule],
    )
    exact_tables(scheduler, process)
    scheduler.set_timesteps(timesteps=sampling_grid(process, options).timesteps.flip(0).tolist())
    x, theirs = x_T, []
    for t in scheduler.timesteps:
        output = wavy(process.outputs)(x, t.expand(2))
        result = scheduler.step(output, t, x)
        x = result.prev_sample
        theirs.append((x, result.pred_original_sample))
    assert_same(ours(process, options, x_T, Prepared(prepared)), theirs, 1e-6)


@pytest.mark.parametrize("target", ["noise", "x0"])
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_unclip_as_karlo(monkeypatch, target: str, variance: str) -> None:
    """The prior clamps at ±10 and predicts x0, the decoder at ±1 and predicts noise."""
    bound = 10.0 if target == "x0" else 1.0
    process = Process(DiffusionConfig(target=target, variance=variance))
    options = SamplingOptions(sampler="ancestral", steps=25, clip="static", bound=bound)
    x_T, *prepared = noises(25, *SHAPE)
    inject(monkeypatch, scheduling_unclip, prepared)
    scheduler = diffusers.UnCLIPScheduler(
        variance_type={"fixed_small": "fixed_small_log"}.get(variance, variance),
        prediction_type=THEIR_TARGET[target],
        clip_sample_range=bound,
    )
    exact_tables(scheduler, process).set_timesteps(25)
    x, theirs = x_T, []
    goals = [*scheduler.timesteps[1:].tolist(), None]
    for t, goal in zip(scheduler.timesteps, goals, strict=True):
        output = wavy(process.outputs)(x, t.expand(2))
        result = scheduler.step(output, t, x, prev_timestep=goal)
        x = result.prev_sample
        theirs.append((x, result.pred_original_sample))
    assert_same(ours(process, options, x_T, Prepared(prepared)), theirs, 1e-6)


@pytest.mark.parametrize("steps", [7, 21, 25, 999])
@pytest.mark.parametrize("target", ["noise", "x0"])
@pytest.mark.parametrize("variance", ["fixed_small", "learned_range"])
def test_unclip_with_their_own_tables_and_step_counts(
    monkeypatch, target: str, variance: str, steps: int
) -> None:
    """Step by step from their x_t, for what is left is rounding alone."""
    config = {"stride": "multiplied", "tables": "float32"}
    process = Process(DiffusionConfig(target=target, variance=variance, **config))
    scheduler = diffusers.UnCLIPScheduler(
        variance_type={"fixed_small": "fixed_small_log"}.get(variance, variance),
        prediction_type=THEIR_TARGET[target],
        clip_sample_range=1.0,
    )
    scheduler.set_timesteps(steps)
    grid = sampling_grid(process, SamplingOptions(steps=steps))
    assert grid.timesteps.flip(0).tolist() == scheduler.timesteps.tolist()
    goals = [*scheduler.timesteps[1:].tolist(), None]
    shown = range(steps) if steps < 30 else [0, 1, 500, 997, 998]
    for place in shown:
        t, goal = int(scheduler.timesteps[place]), goals[place]
        x, noise = noises(2, *SHAPE)
        inject(monkeypatch, scheduling_unclip, [noise])
        output = wavy(process.outputs)(x, torch.full((2,), t))
        theirs = scheduler.step(output, t, x, prev_timestep=goal).prev_sample
        spacing = (t,) if goal is None else (goal, t)
        options = SamplingOptions(steps=len(spacing), spacing=spacing, clip="static")
        mine = ours(process, options, x, Prepared([noise]))[0].sample
        torch.testing.assert_close(mine, theirs.to(mine), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("clip", ["none", "static", "dynamic"])
@pytest.mark.parametrize("target", ["noise", "x0", "v"])
def test_ddim(target: str, clip: str, eta: float) -> None:
    process = Process(DiffusionConfig(target=target, schedule="linear"))
    options = SamplingOptions(sampler="ddim", steps=20, eta=eta, clip=clip, percentile=0.9)
    x_T, *prepared = noises(21, *SHAPE)
    scheduler = diffusers.DDIMScheduler(
        prediction_type=THEIR_TARGET[target],
        clip_sample=clip == "static",
        thresholding=clip == "dynamic",
        dynamic_thresholding_ratio=0.9,
        sample_max_value=1e9,
        **THEIR_SCHEDULE["linear"],
    )
    exact_tables(scheduler, process).set_timesteps(20)
    x, theirs = x_T, []
    for t, noise in zip(scheduler.timesteps, prepared, strict=True):
        result = scheduler.step(
            wavy()(x, t.expand(2)),
            t,
            x,
            eta=eta,
            use_clipped_model_output=clip != "none",
            variance_noise=noise,
        )
        x = result.prev_sample
        theirs.append((x, result.pred_original_sample))
    assert_same(ours(process, options, x_T, Prepared(prepared)), theirs, 1e-6)


def solver(kind, process: Process, options: SamplingOptions, order: int):
    scheduler = kind(
        solver_order=order,
        prediction_type=THEIR_TARGET[process.config.target],
        **THEIR_SCHEDULE[process.config.schedule],
    )
    scheduler.set_timesteps(options.steps)
    grid = sampling_grid(process, options)
    scheduler.timesteps = grid.timesteps.flip(0)
    sigmas = (grid.sigma / grid.alpha).flip(0)
    scheduler.sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    return scheduler


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("target", ["noise", "x0", "v"])
@pytest.mark.parametrize(
    ("name", "steps"), [("dpm++", 8), ("dpm++", 20), ("unipc", 8), ("unipc", 20)]
)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_solvers(name: str, steps: int, target: str, schedule: str, guidance: float) -> None:
    process = Process(DiffusionConfig(target=target, schedule=schedule))
    options = SamplingOptions(sampler=name, steps=steps, clip="none", guidance=guidance)
    (x_T,) = noises(1, *SHAPE)
    if name == "dpm++":
        scheduler = solver(diffusers.DPMSolverMultistepScheduler, process, options, 2)
    else:
        order = 3 if guidance == 1 else 2
        scheduler = solver(diffusers.UniPCMultistepScheduler, process, options, order)
    x, theirs = x_T, []
    for t in scheduler.timesteps:
        x = scheduler.step(wavy()(x, t.expand(2)), t, x).prev_sample
        theirs.append((x, None))
    # Their x passes through float32 (DPM-Solver++), or their weights do (UniPC); where noise is
    # predicted, x̂0 starts at 1/alpha = 160 times x, which scales the absolute error.
    scale = max(float(x.abs().max()) for x, _ in theirs)
    assert_same(ours(process, options, x_T, Prepared([])), theirs, 2e-6 * max(scale, 1))


def test_float32_tables_part_from_ours_at_the_clean_end() -> None:
    """As published: up to 1e-3 of x at t = 0, where 1 - alpha_bar cancels, and none in between."""
    ours, theirs = (
        Process(DiffusionConfig(tables=kind)).schedule for kind in ("float64", "float32")
    )
    assert theirs.alpha_bar.dtype == torch.float32
    apart = (ours.sigma - theirs.sigma.double()).abs() / ours.sigma
    assert 1e-4 < float(apart[0]) < 2e-3
    assert float(apart[200:].max()) < 1e-5


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_their_tables_are_ours_in_float32(schedule: str) -> None:
    theirs = diffusers.DDPMScheduler(**THEIR_SCHEDULE[schedule]).alphas_cumprod.double()
    alpha_bar = Process(DiffusionConfig(schedule=schedule)).schedule.alpha_bar
    # A float32 product of a thousand factors, each rounded by 6e-8.
    torch.testing.assert_close(alpha_bar, theirs, rtol=1e-4, atol=1e-6)


def test_dynamic_threshold() -> None:
    (x,) = noises(1, *SHAPE, dtype=torch.float32)
    x[1] *= 0.1
    scheduler = diffusers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e9
    )
    ours = dynamic_threshold(x, bound=1.0, percentile=0.9)
    torch.testing.assert_close(ours, scheduler._threshold_sample(x), rtol=1e-6, atol=0)
    assert torch.equal(ours[1], x[1])
    torch.testing.assert_close(dynamic_threshold(2 * x, bound=2.0, percentile=0.9), 2 * ours)
