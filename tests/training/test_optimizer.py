"""Decay groups, the learning rate over time, and Adam's state through named tensors."""

import math

import pytest
import torch
from fake_stage import fake_config, new_stage
from torch import nn

from unclip.errors import CheckpointError
from unclip.training.optimizer import (
    build_optimizer,
    decayed_names,
    learning_rate,
    optimizer_tensors,
    restore_optimizer,
)


class Everything(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.LayerNorm(4)
        self.group_norm = nn.GroupNorm(2, 4)
        self.embedding = nn.Embedding(5, 4)
        self.positions = nn.Parameter(torch.zeros(7, 4))
        self.null = nn.Parameter(torch.zeros(4))
        self.logit_scale = nn.Parameter(torch.tensor(0.0))


def test_only_weights_of_matrices_and_convolutions_decay():
    assert decayed_names(Everything()) == {"linear.weight", "conv.weight"}


def test_decay_shrinks_decayed_weights_by_lr_times_decay_and_nothing_else():
    module = Everything()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    build_optimizer(module, fake_config(lr=0.1, weight_decay=0.5)).step()
    for name, parameter in module.named_parameters():
        factor = 1 - 0.1 * 0.5 if name in {"linear.weight", "conv.weight"} else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


def test_frozen_parameters_are_left_out():
    module = Everything()
    module.linear.requires_grad_(False)
    held = sum(
        len(group["params"]) for group in build_optimizer(module, fake_config()).param_groups
    )
    assert held == len(list(module.parameters())) - 2


def test_learning_rate_warms_up_then_follows_a_cosine():
    config = fake_config(lr=1.0, steps=110, warmup=10, schedule="cosine")
    rates = [learning_rate(config, step) for step in range(110)]
    assert rates[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.5)
    assert rates[35] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert 0 < rates[-1] < 0.001
    constant = fake_config(lr=1.0, steps=110, warmup=0)
    assert {learning_rate(constant, step) for step in range(110)} == {1.0}


def test_learning_rate_warms_up_again_where_the_state_was_lost():
    config = fake_config(lr=1.0, steps=1000, warmup=0, rewarm=3)
    rates = [learning_rate(config, step, rewarmed_at=100) for step in range(100, 105)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def _train(stage, optimizer, seeds):
    for seed in seeds:
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        stage.network(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_restored_state_continues_bit_for_bit(memory_format):
    def fresh():
        stage = new_stage().eval().to(memory_format=memory_format)
        return stage, build_optimizer(stage, fake_config())

    straight, optimizer = fresh()
    _train(straight, optimizer, range(6))

    first, optimizer = fresh()
    _train(first, optimizer, range(3))
    tensors = {
        name: value.clone(memory_format=torch.contiguous_format)
        for name, value in optimizer_tensors(first, optimizer).items()
    }
    assert "exp_avg/network.0.weight" in tensors
    second, optimizer = fresh()
    second.load_state_dict(first.state_dict())
    restore_optimizer(second, optimizer, tensors)
    _train(second, optimizer, range(3, 6))
    for mine, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_state_of_another_network_is_refused():
    stage = new_stage()
    optimizer = build_optimizer(stage, fake_config())
    with pytest.raises(CheckpointError, match=r"has network\.9\.weight"):
        restore_optimizer(stage, optimizer, {"exp_avg/network.9.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"gain has shape \(2,\), the stage's \(\)"):
        restore_optimizer(stage, optimizer, {"exp_avg/gain": torch.zeros(2)})


def test_adafactor_keeps_rows_and_columns_and_restores_bit_for_bit():
    def fresh():
        stage = new_stage().eval()
        return stage, build_optimizer(stage, fake_config(optimizer="adafactor", lr=1e-2))

    straight, optimizer = fresh()
    _train(straight, optimizer, range(6))
    first, optimizer = fresh()
    _train(first, optimizer, range(3))
    tensors = {name: value.clone() for name, value in optimizer_tensors(first, optimizer).items()}
    kept = sum(value.numel() for value in tensors.values())
    assert kept < 0.9 * sum(parameter.numel() for parameter in first.parameters())
    second, optimizer = fresh()
    second.load_state_dict(first.state_dict())
    restore_optimizer(second, optimizer, tensors)
    _train(second, optimizer, range(3, 6))
    for mine, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_state_of_another_optimiser_is_refused():
    stage = new_stage()
    adam = build_optimizer(stage, fake_config())
    _train(stage, adam, [0])
    other = build_optimizer(stage, fake_config(optimizer="adafactor"))
    with pytest.raises(CheckpointError, match=r"exp_avg of \S+, which Adafactor does not keep"):
        restore_optimizer(stage, other, optimizer_tensors(stage, adam))
    muon = build_optimizer(stage, fake_config(optimizer="muon"))
    with pytest.raises(CheckpointError, match=r"of \S+weight, which Muon does not keep"):
        restore_optimizer(stage, muon, optimizer_tensors(stage, adam))
