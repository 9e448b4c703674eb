"""What Kandinsky's process needs: a linear schedule of other ends, leading steps, a limit."""

import pytest
import torch
from diffusers import DDPMScheduler

from unclip.diffusion.clipping import dynamic_threshold
from unclip.diffusion.options import SamplingOptions
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.diffusion.spacing import leading
from unclip.errors import OptionError

KANDINSKY = {"beta_schedule": "linear", "beta_start": 0.00085, "beta_end": 0.012}


def test_betas_between_given_ends() -> None:
    theirs = DDPMScheduler(**KANDINSKY)
    process = Process(DiffusionConfig(schedule="linear", betas=(0.00085, 0.012)))
    torch.testing.assert_close(process.schedule.alpha_bar.float(), theirs.alphas_cumprod)
    exact = Process(DiffusionConfig(schedule="linear", betas=(0.00085, 0.012), tables="float32"))
    assert (exact.schedule.alpha_bar - theirs.alphas_cumprod).abs().max() < 1e-6


@pytest.mark.parametrize("values", [{"schedule": "cosine"}, {"betas": (0.5, 0.1)}])
def test_ends_that_make_no_sense(values: dict) -> None:
    with pytest.raises(OptionError, match="betas"):
        DiffusionConfig.parse({"schedule": "linear", "betas": (0.1, 0.2)} | values, source="test")


@pytest.mark.parametrize("steps", [1, 7, 30, 50, 64, 100, 333, 1000])
def test_leading_steps_are_diffusers(steps: int) -> None:
    scheduler = DDPMScheduler(**KANDINSKY)
    scheduler.set_timesteps(steps)
    assert leading(1000, steps) == tuple(scheduler.timesteps.flip(0).tolist())


@pytest.mark.parametrize("limit", [1.5, 2.0, 100.0])
def test_a_limited_threshold_is_diffusers(limit: float) -> None:
    scheduler = DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=limit
    )
    x0 = torch.randn(3, 4, 6, 5) * torch.tensor([0.3, 1.2, 4.0]).reshape(3, 1, 1, 1)
    ours = dynamic_threshold(x0, bound=1.0, percentile=0.9, limit=limit)
    torch.testing.assert_close(ours, scheduler._threshold_sample(x0))


def test_a_limit_below_the_bound_is_refused() -> None:
    with pytest.raises(OptionError, match="limit"):
        SamplingOptions.parse({"bound": 2.0, "limit": 1.0}, source="test")
