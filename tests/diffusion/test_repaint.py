"""Inpainting against the one case whose answer is known: two correlated Gaussian numbers."""

import pytest
import torch

from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.samplers.repaint import Known
from unclip.diffusion.sampling import SamplingOptions, sample
from unclip.errors import OptionError
from unclip.randomness import Randomness
from unclip.types import finish

CORRELATION, DEVIATION = 0.9, 0.5
COVARIANCE = DEVIATION**2 * torch.tensor([[1, CORRELATION], [CORRELATION, 1]]).double()
ROWS = 4000


def network(process: Process):
    """The exact E[x0 | x_t] of data from N(0, COVARIANCE), as a network that predicts x0."""

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a, s = (float(process.lookup(name, t[:1], x[:1])) for name in ("alpha", "sigma"))
        gain = a * COVARIANCE @ torch.linalg.inv(a**2 * COVARIANCE + s**2 * torch.eye(2))
        return torch.einsum("ij,bchj->bchi", gain.to(x), x)

    return denoise


def inpaint(left: float, resamplings: int, sampler: str = "ancestral") -> torch.Tensor:
    """Draw the right number of a pair whose left one is given."""
    process = Process(DiffusionConfig(target="x0"))
    known = Known(torch.tensor([[[[left, 77.0]]]]), torch.tensor([[[[0.0, 1.0]]]]), resamplings)
    options = SamplingOptions(sampler=sampler, steps=30, spacing="strided", clip="none")
    randomness = Randomness([0], per_stream=ROWS)
    x_T = randomness.normal(1, 1, 2)
    walk = sample(process, network(process), x_T, options, randomness, stage="t", known=known)
    drawn = finish(walk)
    assert torch.equal(drawn[..., 0], torch.full_like(drawn[..., 0], left))
    return drawn[..., 1].flatten()


@pytest.mark.parametrize("left", [-0.6, 0.8])
def test_resampling_draws_from_the_conditional_distribution(left: float) -> None:
    mean, deviation = CORRELATION * left, DEVIATION * (1 - CORRELATION**2) ** 0.5
    once, often = inpaint(left, 1), inpaint(left, 10)
    assert abs(float(often.mean()) - mean) < 0.05
    assert abs(float(often.std()) - deviation) < 0.07
    assert abs(float(often.mean()) - mean) < abs(float(once.mean()) - mean)


def test_steps_are_counted() -> None:
    process = Process(DiffusionConfig(target="x0"))
    known = Known(torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 1.0]]]]), resamplings=3)
    options = SamplingOptions(sampler="ddim", eta=1.0, steps=5, spacing="strided")
    x_T = torch.randn(1, 1, 1, 2)
    walk = sample(process, network(process), x_T, options, Randomness([0]), stage="t", known=known)
    steps = list(walk)
    assert [step.index for step in steps] == list(range(13))
    assert {step.total for step in steps} == {13}


def test_everything_masked_is_plain_sampling() -> None:
    process = Process(DiffusionConfig(target="x0"))
    x_T = torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    options = SamplingOptions(sampler="ddim", eta=0.7, steps=8, spacing="strided")
    free = Known(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    drawn = [
        finish(
            sample(
                process,
                network(process),
                x_T,
                options,
                Randomness(range(6)),
                stage="t",
                known=known,
            )
        )
        for known in (None, free)
    ]
    assert torch.equal(*drawn)


def test_solvers_are_refused() -> None:
    with pytest.raises(OptionError, match="cannot inpaint"):
        inpaint(0.5, 1, sampler="unipc")
