"""The moving average: its half-life is in images, whatever the batch."""

import pytest
import torch
from fake_stage import new_stage

from unclip.training.ema import Ema, ema_decay


@pytest.mark.parametrize("batch", [1, 10, 100])
def test_weight_halves_after_a_half_life_of_images(batch):
    remaining = 1.0
    for _ in range(1000 // batch):
        remaining *= ema_decay(batch, 10**9, half_life=1000.0, ramp=0.05)
    assert remaining == pytest.approx(0.5)


def test_early_half_life_is_a_share_of_the_images_seen():
    assert ema_decay(10, 10, half_life=1e6, ramp=0.05) == pytest.approx(0.5**20)
    assert ema_decay(10, 2000, half_life=1e6, ramp=0.05) == pytest.approx(0.5**0.1)
    assert ema_decay(10, 10, half_life=0.0, ramp=0.05) == 0.0


def test_average_moves_towards_the_weights_and_copies_buffers():
    stage = new_stage()
    ema = Ema(stage)
    start = stage.network[0].weight.detach().clone()
    with torch.no_grad():
        stage.network[0].weight.add_(1.0)
        stage.mean.fill_(3.0)
    ema.update(stage, decay=0.75)
    torch.testing.assert_close(ema.stage.network[0].weight, start + 0.25)
    assert torch.equal(ema.stage.mean, torch.full((3,), 3.0))
    assert not ema.stage.training
    assert not any(parameter.requires_grad for parameter in ema.stage.parameters())


def test_without_averaging_no_tensor_is_copied():
    stage = new_stage()
    ema = Ema(stage, averaging=False)
    pairs = zip(ema.stage.parameters(), stage.parameters(), strict=True)
    assert all(mine is theirs for mine, theirs in pairs)
    assert ema.stage.mean is stage.mean
    assert stage.training
    assert not ema.stage.training
    assert all(parameter.requires_grad for parameter in stage.parameters())
    ema.update(stage, decay=0.5)


def test_frozen_weights_are_shared_and_the_others_averaged():
    stage = new_stage()
    stage.network[0].requires_grad_(False)
    ema = Ema(stage)
    assert ema.stage.network[0].weight is stage.network[0].weight
    before = stage.gain.detach().clone()
    with torch.no_grad():
        stage.gain.add_(1.0)
        stage.network[0].weight.add_(1.0)
    ema.update(stage, decay=0.75)
    torch.testing.assert_close(ema.stage.gain.detach(), before + 0.25)
