"""SAM against closed forms, and over processes (§8.14)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_stage import FakeLoader, FakeStage, fake_config, new_stage
from torch import nn

from unclip.training.sam import climbed
from unclip.training.trainer import train

SCRIPT = Path(__file__).with_name("sam_processes.py")


class Bowl(nn.Module):
    """½ wᵀAw, whose gradient is Aw."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Parameter(torch.randn(3, dtype=torch.float64))
        self.second = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.unused = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.frozen = nn.Parameter(torch.ones(2, dtype=torch.float64), requires_grad=False)
        root = torch.randn(5, 5, dtype=torch.float64)
        self.a = root @ root.T

    def weights(self) -> torch.Tensor:
        return torch.cat([self.first, self.second])

    def forward(self) -> torch.Tensor:
        return 0.5 * self.weights() @ self.a @ self.weights() + 0 * self.frozen.sum()


@pytest.mark.parametrize("radius", [0.05, 2.0])
def test_the_gradient_of_a_quadratic_is_that_uphill(radius: float) -> None:
    bowl = Bowl()
    w = bowl.weights().detach()
    with climbed(bowl.parameters(), bowl, radius):
        lifted = bowl.weights().detach()
        bowl().backward()
    slope = bowl.a @ w
    expected = w + radius * slope / slope.norm()
    torch.testing.assert_close(lifted, expected)
    assert (lifted - w).norm().item() == pytest.approx(radius)
    found = torch.cat([bowl.first.grad, bowl.second.grad])
    torch.testing.assert_close(found, bowl.a @ expected)
    assert bowl.frozen.tolist() == [1, 1]


def test_weights_come_back_bit_for_bit_even_after_an_error() -> None:
    stage = new_stage()
    before = [p.detach().clone() for p in stage.parameters()]
    x = torch.randn(2, 3, 8, 8)

    def loss() -> torch.Tensor:
        return stage.network(x).square().mean()

    for radius in (0.1, 1e6):
        with climbed(stage.parameters(), loss, radius):
            assert not torch.equal(stage.network[0].weight, before[1])
        assert all(torch.equal(p, b) for p, b in zip(stage.parameters(), before, strict=True))
    with pytest.raises(KeyError), climbed(stage.parameters(), loss, 0.1):
        raise KeyError
    assert all(torch.equal(p, b) for p, b in zip(stage.parameters(), before, strict=True))


def test_gradients_already_there_stay() -> None:
    bowl = Bowl()
    bowl.first.grad = torch.full((3,), 7.0, dtype=torch.float64)
    with climbed(bowl.parameters(), bowl, 0.1):
        pass
    assert bowl.first.grad.tolist() == [7, 7, 7]
    assert bowl.second.grad is None


def test_no_radius_is_no_second_evaluation() -> None:
    def loss() -> torch.Tensor:
        raise AssertionError("asked for")

    bowl, before = Bowl(), Bowl().weights()
    with climbed(bowl.parameters(), loss, 0.0):
        assert torch.equal(bowl.weights(), before)


def test_a_flat_place_is_no_error() -> None:
    bowl = Bowl()
    with torch.no_grad():
        bowl.first.zero_(), bowl.second.zero_()
    with climbed(bowl.parameters(), bowl, 0.1):
        assert bowl.weights().abs().max() == 0


def by_hand(steps: int, radius: float, parts: int) -> FakeStage:
    """SAM with clipping and AdamW as its paper writes it down, one part after another."""
    stage, config = new_stage(dropout=0.0), fake_config()
    optimiser = torch.optim.AdamW(stage.parameters(), lr=config.lr, weight_decay=0.0)
    loader = FakeLoader(config.batch).batches(0)
    from unclip.randomness import Randomness
    from unclip.training.optimizer import learning_rate

    for step in range(steps):
        batch = next(loader)
        total = [torch.zeros_like(p) for p in stage.parameters()]
        size = config.batch // parts
        for first in range(0, config.batch, size):
            images = batch.images[first : first + size]
            part = type(batch)(keys=batch.keys[first : first + size], images=images)
            start = [p.detach().clone() for p in stage.parameters()]
            for uphill in (True, False):
                stage.zero_grad()
                randomness = Randomness.for_step(config.seed, step, first, size)
                stage(part, randomness)["loss"].backward()
                gradients = [p.grad.clone() for p in stage.parameters()]
                norm = torch.cat([g.flatten() for g in gradients]).norm()
                for p, w, g in zip(stage.parameters(), start, gradients, strict=True):
                    p.data = w + radius * g / norm if uphill else w
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_ += gradient / parts
        for p, gradient in zip(stage.parameters(), total, strict=True):
            p.grad = gradient
        nn.utils.clip_grad_norm_(stage.parameters(), config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(config, step)
        optimiser.step()
        stage.after_step()
    return stage


@pytest.mark.parametrize("parts", [1, 2])
def test_training_is_what_the_paper_writes_down(tmp_path: Path, parts: int) -> None:
    """With accumulation each part climbs for itself, and clipping sees the uphill gradient."""
    stage = new_stage(dropout=0.0)
    config = fake_config(steps=4, sam_radius=0.3, accumulate=parts)
    train(stage, FakeLoader(config.batch), config, tmp_path / "run", device="cpu")
    expected, plain = by_hand(4, 0.3, parts), by_hand(4, 0.0, parts)
    for ours, theirs in zip(stage.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(next(plain.parameters()), next(stage.parameters()), atol=1e-3)


def test_sam_trains_in_bfloat16(tmp_path: Path) -> None:
    stage = new_stage()
    config = fake_config(steps=10, sam_radius=0.05, precision="bf16")
    report = train(stage, FakeLoader(config.batch), config, tmp_path / "run", device="cpu")
    assert report.losses["loss"] < 1.5
    assert {p.dtype for p in stage.parameters()} == {torch.float32}


@pytest.mark.slow
def test_processes_climb_apart_and_step_together(tmp_path: Path) -> None:
    """Two processes do what one does with two accumulated parts, which climb apart as well."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    runs = {"one": ([], "2"), "two": (launcher, "1")}
    running = [
        subprocess.Popen(
            [sys.executable, *how, str(SCRIPT), str(tmp_path / name), parts],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for name, (how, parts) in runs.items()
    ]
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()
    alone = torch.load(tmp_path / "one/seen-0.pt").reshape(3, 2, 2, -1)
    ranks = [torch.load(tmp_path / f"two/seen-{rank}.pt").reshape(3, 2, -1) for rank in (0, 1)]
    for rank in ranks:
        torch.testing.assert_close((rank[:, 1] - rank[:, 0]).norm(dim=-1), torch.full((3,), 0.3))
    assert torch.equal(ranks[0][:, 0], ranks[1][:, 0]), "the same weights before each step"
    apart = (ranks[0][:, 1] - ranks[1][:, 1]).norm(dim=-1)
    assert apart.min() > 0.01, "different ones uphill"
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found, alone[:, rank], rtol=1e-3, atol=1e-4)
