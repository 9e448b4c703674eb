"""Tiled prediction: exact for local networks, measured for networks with GroupNorm."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from unclip.upsampler.tiles import _spans, tiled


def t_of(images: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(st.integers(2, 60), st.integers(2, 16), st.integers(1, 60), st.sampled_from([1, 2, 8]))
def test_weights_cover_everything_once(length, tile, overlap, multiple):
    length, tile = length * multiple, tile * multiple
    overlap = min(overlap, tile - 1)
    total = torch.zeros(length)
    spans = _spans(length, tile, overlap, multiple)
    for start, end, weight in spans:
        assert 0 <= start < end <= length
        assert start % multiple == 0
        assert end - start == min(tile, length)
        assert (weight >= 0).all()
        total[start:end] += weight
    torch.testing.assert_close(total, torch.ones(length))
    for (_, end, _), (start, _, _) in pairwise(spans):
        assert end - start >= min(overlap, tile - multiple)


def test_local_network_is_reproduced_exactly():
    torch.manual_seed(0)
    layers = [nn.Conv2d(6, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1)]
    network = nn.Sequential(*layers)
    inputs = torch.randn(2, 6, 72, 56)
    blended = tiled(lambda x, t: network(x), size=24, overlap=8)(inputs, t_of(inputs))
    torch.testing.assert_close(blended, network(inputs), atol=1e-5, rtol=1e-5)


def test_strided_network_is_reproduced_on_its_grid():
    torch.manual_seed(0)
    layers = [nn.PixelUnshuffle(4), nn.Conv2d(48, 48, 3, padding=1), nn.PixelShuffle(4)]
    network = nn.Sequential(*layers)
    inputs = torch.randn(1, 3, 80, 80)
    blended = tiled(lambda x, t: network(x), size=40, overlap=28, multiple=4)(inputs, t_of(inputs))
    torch.testing.assert_close(blended, network(inputs), atol=1e-5, rtol=1e-5)


def test_a_network_that_sees_further_is_not():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 9, padding=4)
    inputs = torch.randn(1, 3, 48, 48)
    blended = tiled(lambda x, t: network(x), size=16, overlap=8)(inputs, t_of(inputs))
    assert (blended - network(inputs)).abs().max() > 1e-2


def test_tiles_that_disagree_are_blended_smoothly():
    """A network that subtracts its picture's mean: each tile of a ramp is off by its own amount.

    The disagreement of neighbours, 12/96, is spread over half of the overlap of 12 pixels by a
    raised cosine, whose steepest step is π/2 times its mean one.
    """
    ramp = (torch.arange(96) / 96).expand(1, 1, 96, 96)

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x - x.mean((2, 3), keepdim=True)

    out = tiled(network, size=24, overlap=12)(ramp, t_of(ramp))
    steps = (out[..., 1:] - out[..., :-1]).abs()
    assert steps.max() < 1 / 96 + 12 / 96 / 6 * torch.pi / 2
    assert steps.max() > 1 / 96 + 1e-3


def test_tiles_are_small_and_a_fitting_image_is_not_cut():
    seen = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape[-2:]))
        return x

    inputs = torch.randn(1, 3, 32, 64)
    tiled(network, size=32, overlap=8)(inputs, t_of(inputs))
    assert seen == [(32, 32)] * 3
    seen.clear()
    tiled(network, size=64, overlap=8)(inputs, t_of(inputs))
    assert seen == [(32, 64)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_blending_is_in_float32(dtype):
    inputs = torch.randn(1, 3, 32, 32)
    out = tiled(lambda x, t: x.to(dtype), size=16, overlap=8)(inputs, t_of(inputs))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, inputs.to(dtype).float(), atol=1e-6, rtol=1e-6)
