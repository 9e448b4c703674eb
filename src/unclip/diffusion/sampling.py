"""One door to all samplers: the walk that `SamplingOptions` ask for (§4.2, §4.4, §4.5)."""

import torch
from jaxtyping import Float
from torch import Tensor

from unclip.diffusion import spacing
from unclip.diffusion.clipping import clipping
from unclip.diffusion.options import Clipping
from unclip.diffusion.options import SamplingOptions as SamplingOptions
from unclip.diffusion.process import Network, Process
from unclip.diffusion.samplers.ancestral import ancestral
from unclip.diffusion.samplers.ddim import ddim, invert_ddim
from unclip.diffusion.samplers.denoiser import Denoiser
from unclip.diffusion.samplers.dpm_solver import dpm_solver
from unclip.diffusion.samplers.repaint import Known, repaint
from unclip.diffusion.samplers.unipc import unipc
from unclip.diffusion.schedule import Schedule
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import Sampling


def sampling_grid(process: Process, options: SamplingOptions) -> Schedule:
    """The noise levels that ``options`` visit, cleanest first.

    Raises:
        OptionError: more steps than levels, an impossible stride, or timesteps out of range.
    """
    table = process.schedule
    noisiest = max(round(options.start * len(table)), 1)
    visited = table.timesteps[round(options.end * len(table)) : noisiest].tolist()
    if options.steps > len(visited):
        raise OptionError(
            f"{options.steps} steps of only {len(visited)} noise levels; ask for fewer"
        )
    if len(visited) < len(table):
        table = table.respace(visited)
    timesteps = _timesteps(table, options, process.config.stride)
    return table.respace(timesteps[: len(timesteps) - options.skip])


def _timesteps(
    table: Schedule, options: SamplingOptions, stride: spacing.Stride
) -> tuple[int, ...]:
    if isinstance(options.spacing, tuple):
        return options.spacing
    solver = options.sampler in ("dpm++", "unipc")
    if options.spacing == "log_snr" or (options.spacing is None and solver):
        return spacing.even_log_snr(table, options.steps)
    return tuple(int(table.timesteps[place]) for place in _places(len(table), options, stride))


def _places(total: int, options: SamplingOptions, stride: spacing.Stride) -> tuple[int, ...]:
    steps = options.steps
    match options.spacing:
        case "strided":
            return spacing.strided(total, steps, stride)
        case "integer":
            return spacing.require(spacing.integer_strided(total, steps), total, steps)
        case "trailing":
            return spacing.trailing(total, steps)
        case "leading":
            return spacing.leading(total, steps)
    if options.sampler == "ancestral":
        return spacing.strided(total, steps, stride)
    if options.start < 1:
        # An integer stride leaves out the noisiest levels, where the caller's x_T is.
        return spacing.trailing(total, steps)
    integer = spacing.integer_strided(total, steps)
    return integer or spacing.strided(total, steps, stride)


def first_timestep(process: Process, options: SamplingOptions) -> int:
    """The timestep at whose noise level x_T is expected: noise x0 to it when ``start`` < 1."""
    return int(sampling_grid(process, options).timesteps[-1])


def sample(
    process: Process,
    network: Network,
    x_T: Float[Tensor, "b ..."],
    options: SamplingOptions,
    randomness: Randomness,
    *,
    stage: str,
    posterior_mse: Float[Tensor, " k"] | None = None,
    clip: Clipping = "static",
    known: Known | None = None,
) -> Sampling:
    """Walk from x_T to a sample, one `Step` at a time.

    Args:
        process: the process the network was trained on.
        network: ``(x_t, t) -> output``, guidance included (see `guidance.guided`).
        x_T: noise, or x at the level `first_timestep`. Its noise is the caller's to draw.
        options: how to walk; their guidance fields are the caller's to apply.
        randomness: noise of the stochastic samplers, drawn once a step, never at the last.
        stage: named in each `Step`.
        posterior_mse: M_t at each level of `sampling_grid`, or at all T, for the variance
            ``analytic`` (§4.4).
        clip: what suits the samples, where ``options.clip`` is unset; embeddings want ``none``.
        known: a part of the sample that is given (inpainting); ancestral sampling then is DDIM
            with η = 1, and the solvers cannot be asked for.

    The arithmetic is float32 whatever the network's type, and float64 if x_T is.

    Raises:
        OptionError: when the first step is asked for, if the options do not fit the process.
    """
    grid = sampling_grid(process, options)
    clipped = clipping(options.clip or clip, options.bound, options.percentile, options.limit)
    clipped = known.kept(clipped) if known else clipped
    denoiser = Denoiser(process, network, grid, clipped, options.x0_error)
    x = _working_type(x_T)
    if known is not None:
        eta, repeats = inpainting_eta(options), known.resamplings
        walk = repaint(denoiser, x, randomness, stage=stage, eta=eta, resamplings=repeats)
        return (yield from walk)
    match options.sampler:
        case "ancestral":
            mse = _on_grid(posterior_mse, grid, len(process.schedule))
            return (
                yield from ancestral(
                    denoiser,
                    x,
                    randomness,
                    stage=stage,
                    variance=options.variance,
                    posterior_mse=mse,
                )
            )
        case "ddim":
            return (yield from ddim(denoiser, x, randomness, stage=stage, eta=options.eta))
        case "dpm++":
            return (yield from dpm_solver(denoiser, x, stage=stage))
        case "unipc":
            order = 3 if options.guidance == 1 else 2
            return (yield from unipc(denoiser, x, stage=stage, order=order))


def invert(
    process: Process,
    network: Network,
    x0: Float[Tensor, "b ..."],
    options: SamplingOptions,
    *,
    stage: str,
    iterations: int = 0,
    noise: Float[Tensor, "b ..."] | None = None,
) -> Sampling:
    """Find the x_T from which DDIM with the same grid makes x0 (§2), one `Step` at a time.

    x̂0 is never clipped here. Up to ``iterations`` extra evaluations a step make the inversion
    exact where they converge. ``noise``, if given, is what the first step adds, so that flat data
    end as noise too. The walk ends at the level `first_timestep`.
    """
    grid = sampling_grid(process, options)
    denoiser = Denoiser(process, network, grid, x0_error=options.x0_error)
    x = _working_type(x0)
    walk = invert_ddim(denoiser, x, stage=stage, iterations=iterations, noise=noise)
    return (yield from walk)


@torch.no_grad()
def measure_x0_error(
    process: Process,
    network: Network,
    x0: Float[Tensor, "b ..."],
    options: SamplingOptions,
    noise: Float[Tensor, "b ..."],
) -> float:
    """Root mean square error of x̂0 at the cleanest level that ``options`` visit."""
    denoiser = Denoiser(process, network, sampling_grid(process, options))
    x = _working_type(x0)
    found = denoiser(denoiser.alpha[0] * x + denoiser.sigma[0] * noise, 0).x0
    return float((found - x).square().mean().sqrt())


def inpainting_eta(options: SamplingOptions) -> float:
    """η of a walk that knows a part of the sample.

    Raises:
        OptionError: a solver is asked for, whose steps rely on x̂0 changing smoothly.
    """
    match options.sampler:
        case "ancestral":
            return 1.0
        case "ddim":
            return options.eta
    raise OptionError(f"the sampler {options.sampler} cannot inpaint: use ancestral or ddim")


def _working_type(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _on_grid(posterior_mse: Tensor | None, grid: Schedule, total: int) -> Tensor | None:
    if posterior_mse is None:
        return None
    mse = posterior_mse.cpu().double()
    if len(mse) == len(grid):
        return mse
    if len(mse) == total:
        return mse[grid.timesteps]
    raise OptionError(
        f"the posterior error was measured at {len(mse)} levels, these options visit {len(grid)}; "
        "measure it again for them"
    )
