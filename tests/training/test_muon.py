"""Muon against the singular value decomposition, torch's own Muon and AdamW."""

import pytest
import torch
from torch import nn

from unclip.training.config import TrainingConfig
from unclip.training.muon import Muon, orthogonal
from unclip.training.optimizer import build_optimizer, optimizer_tensors, restore_optimizer


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_orthogonal_keeps_directions_and_levels_singular_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    u2, s2, vh2 = torch.linalg.svd(orthogonal(matrix[None])[0], full_matrices=False)
    assert s2.min() > 0.6
    assert s2.max() < 1.3
    # U Vᵀ is the nearest orthogonal matrix; rescaled singular values leave it as it is.
    assert torch.allclose(u2 @ vh2, u @ vh, atol=1e-8)


def test_matrices_move_as_by_torchs_muon():
    ours = nn.Parameter(torch.randn(12, 30, generator=torch.Generator().manual_seed(1)))
    theirs = nn.Parameter(ours.detach().clone())
    groups = [{"params": [ours], "orthogonal": True, "weight_decay": 0.1}]
    optimizer = Muon(groups, lr=0.02)
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        gradient = torch.randn(12, 30, generator=torch.Generator().manual_seed(10 + step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    # Both iterate in bfloat16, in another order of additions.
    assert torch.allclose(ours, theirs, atol=2e-4)


def test_a_convolution_moves_as_its_matrix_of_outputs():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    conv, matrix = nn.Parameter(weight.clone()), nn.Parameter(weight.flatten(1).clone())
    optimizer = Muon([{"params": [conv, matrix], "orthogonal": True}], lr=0.1)
    gradient = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    conv.grad, matrix.grad = gradient, gradient.flatten(1).clone()
    optimizer.step()
    assert torch.equal(conv.flatten(1), matrix)


def test_matrices_of_one_shape_move_as_each_by_itself():
    # Of very different sizes: each is brought to its own scale.
    together, apart = ([nn.Parameter(torch.ones(6, 10) * k) for k in range(3)] for _ in range(2))
    optimizers = [Muon([{"params": together, "orthogonal": True}], lr=0.1)]
    optimizers += [Muon([{"params": [one], "orthogonal": True}], lr=0.1) for one in apart]
    for number, (one, other) in enumerate(zip(together, apart, strict=True)):
        generator = torch.Generator().manual_seed(number)
        one.grad = 10.0**number * torch.randn(6, 10, generator=generator)
        other.grad = one.grad.clone()
    for optimizer in optimizers:
        optimizer.step()
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


def test_everything_else_moves_as_by_adamw():
    ours = nn.Parameter(torch.linspace(-1, 1, 7))
    theirs = nn.Parameter(ours.detach().clone())
    optimizer = Muon([{"params": [ours]}], lr=0.01, betas=(0.8, 0.95), eps=1e-7)
    reference = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-7, weight_decay=0.0)
    for step in range(5):
        gradient = torch.randn(7, generator=torch.Generator().manual_seed(step))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        for group in optimizer.param_groups + reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        optimizer.step()
        reference.step()
    assert torch.equal(ours, theirs)


def test_a_resumed_muon_goes_on_where_it_stopped():
    config = TrainingConfig(steps=10, batch=2, lr=0.05, optimizer="muon", weight_decay=0.1)

    def walk(module, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            loss = module(torch.randn(2, 3, 8, 8)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def build():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Flatten())
        return module.append(nn.Linear(144, 5))

    straight = build()
    walk(straight, build_optimizer(straight, config), range(6))
    first = build()
    optimizer = build_optimizer(first, config)
    walk(first, optimizer, range(3))
    tensors = {name: value.clone() for name, value in optimizer_tensors(first, optimizer).items()}
    assert {name.split("/")[0] for name in tensors} == {"momentum", "exp_avg", "exp_avg_sq", "step"}
    second = build()
    second.load_state_dict(first.state_dict())
    resumed = build_optimizer(second, config)
    restore_optimizer(second, resumed, tensors)
    walk(second, resumed, range(3, 6))
    for ours, theirs in zip(second.parameters(), straight.parameters(), strict=True):
        assert torch.equal(ours, theirs)
