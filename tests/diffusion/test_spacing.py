import itertools

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UnCLIPScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip.diffusion import spacing
from unclip.diffusion.schedule import cosine, linear
from unclip.errors import OptionError

COSINE, LINEAR = cosine(1000), linear(1000)


@pytest.mark.parametrize("steps", [2, 25, 64, 250, 1000])
def test_strided_is_karlos(steps: int) -> None:
    theirs = UnCLIPScheduler()
    theirs.set_timesteps(steps)
    assert list(spacing.strided(1000, steps)) == theirs.timesteps.flip(0).tolist()


def test_strided_rounds_as_diffusers_does_or_as_karlos_authors_did() -> None:
    """Both for every count; they part for 278, of which 7, 25 and 50 are none."""
    theirs, apart = UnCLIPScheduler(), []
    for steps in range(2, 1001):
        theirs.set_timesteps(steps)
        multiplied = spacing.strided(1000, steps, "multiplied")
        assert list(multiplied) == theirs.timesteps.flip(0).tolist()
        if spacing.strided(1000, steps, "accumulated") != multiplied:
            apart.append(steps)
    assert len(apart) == 278
    assert apart[:7] == [21, 23, 31, 35, 39, 43, 45]
    assert not {7, 25, 50} & set(apart)


@pytest.mark.parametrize(
    ("stride", "visited"), [("exact", 999), ("multiplied", 999), ("accumulated", 0)]
)
def test_a_single_step(stride: str, visited: int) -> None:
    """guided-diffusion takes it at the cleanest level; diffusers divides by zero."""
    assert spacing.strided(1000, 1, stride) == (visited,)


def test_published_integer_strides() -> None:
    # §1.8: 27 steps are 0, 38, … 988; 15 are 0, 67, … 938. §4.2: 64 has none.
    assert spacing.integer_strided(1000, 27) == tuple(range(0, 989, 38))
    assert spacing.integer_strided(1000, 15) == tuple(range(0, 939, 67))
    assert spacing.integer_strided(1000, 64) is None
    with pytest.raises(OptionError, match="no integer stride makes 64 steps of 1000"):
        spacing.require(None, 1000, 64)


@pytest.mark.parametrize("steps", [4, 10, 25, 50])
def test_trailing_is_the_published_one(steps: int) -> None:
    theirs = DDPMScheduler(timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    assert list(spacing.trailing(1000, steps)) == theirs.timesteps.flip(0).tolist()


@settings(deadline=None, max_examples=100)
@given(total=st.integers(1, 400), data=st.data())
def test_every_spacing_gives_distinct_timesteps_in_range(total: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, total))
    schedule = cosine(total)
    for timesteps in (
        spacing.strided(total, steps),
        spacing.integer_strided(total, steps) or spacing.strided(total, steps),
        spacing.trailing(total, steps),
        spacing.even_log_snr(schedule, steps),
    ):
        assert len(timesteps) == steps
        assert all(a < b for a, b in itertools.pairwise(timesteps))
        assert timesteps[0] >= 0
        assert timesteps[-1] < total


@pytest.mark.parametrize("schedule", [COSINE, LINEAR], ids=["cosine", "linear"])
@pytest.mark.parametrize("steps", [8, 20, 40])
def test_log_snr_is_even(schedule, steps: int) -> None:
    timesteps = torch.tensor(spacing.even_log_snr(schedule, steps))
    half_log_snr = schedule.half_log_snr
    visited = half_log_snr[timesteps]
    assert timesteps[0] == 0
    assert -5.1 <= visited[-1] < -4.9
    wanted = np.linspace(float(visited[0]), float(visited[-1]), steps)
    # Off by no more than half the table's own spacing there, or by one level near t = 0.
    gaps = (half_log_snr[:-1] - half_log_snr[1:])[timesteps.clamp(max=998)]
    assert np.all(np.abs(visited.numpy() - wanted) <= np.maximum(gaps.numpy(), 1e-2))


def test_a_single_step_starts_where_there_is_only_noise() -> None:
    assert spacing.strided(1000, 1) == (999,)
    assert spacing.integer_strided(1000, 1) == (999,)
    assert spacing.trailing(1000, 1) == (999,)
    (timestep,) = spacing.even_log_snr(COSINE, 1)
    assert COSINE.half_log_snr[timestep] < -5
