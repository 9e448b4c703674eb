"""A stage of ten lines and a loader of five, and a command that trains the one on the other."""

import argparse
from typing import ClassVar

import torch
from torch import nn

from unclip.config import Config
from unclip.training.config import TrainingConfig
from unclip.training.trainer import train
from unclip.types import Batch


class FakeConfig(Config):
    width: int = 8
    dropout: float = 0.1


class FakeStage(nn.Module):
    """Learns to tell noise from images; has a convolution, a norm, dropout, a gain, a buffer."""

    name: ClassVar[str] = "fake"
    needs: ClassVar[frozenset[str]] = frozenset({"images"})

    def __init__(self, config: FakeConfig) -> None:
        super().__init__()
        self.config = config
        self.network = nn.Sequential(
            nn.Conv2d(3, config.width, 3, padding=1),
            nn.GroupNorm(2, config.width),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Conv2d(config.width, 3, 3, padding=1),
        )
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, batch, randomness):
        noise = randomness.normal(*batch.images.shape[1:])
        error = self.gain * self.network(batch.images + noise).float() - noise
        loss = error.square().mean()
        return {"loss": loss, "bias": error.mean()}

    def after_step(self):
        with torch.no_grad():
            self.gain.clamp_(max=1.05)


class FakeLoader:
    """Batch k depends on k alone; each process takes its slice."""

    def __init__(self, batch: int, rank: int = 0, processes: int = 1, bad_step: int | None = None):
        self.batch, self.rank, self.processes, self.bad_step = batch, rank, processes, bad_step

    def batches(self, start):
        share = self.batch // self.processes
        mine = slice(self.rank * share, (self.rank + 1) * share)
        while True:
            images = torch.randn(
                self.batch, 3, 8, 8, generator=torch.Generator().manual_seed(1000 + start)
            ).clamp(-1, 1)
            if start == self.bad_step:
                images[1, 0, 0, 0] = float("nan")
            keys = tuple(f"batch{start}/{i}" for i in range(self.batch))
            yield Batch(keys=keys[mine], images=images[mine])
            start += 1


def fake_config(**changes) -> TrainingConfig:
    values = {"steps": 12, "batch": 16, "lr": 1e-2, "warmup": 2, "log_every": 1, "save_every": 4}
    return TrainingConfig(**(values | {"precision": "fp32"} | changes))


def new_stage(dropout: float = 0.1) -> FakeStage:
    torch.manual_seed(0)
    return FakeStage(FakeConfig(dropout=dropout))


def main() -> None:
    import accelerate

    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--dropout", type=float, default=0.1)
    arguments = parser.parse_args()
    config = fake_config().override(dict(item.split("=") for item in arguments.set))
    state = accelerate.PartialState(cpu=True)
    loader = FakeLoader(config.batch, state.process_index, state.num_processes)
    train(new_stage(arguments.dropout), loader, config, arguments.run, device="cpu")


if __name__ == "__main__":
    main()
