"""Trains the fake stage with SAM and keeps the weights that every evaluation saw."""

import sys
from pathlib import Path

import accelerate
import torch
from fake_stage import FakeConfig, FakeLoader, FakeStage, fake_config

from unclip.training.trainer import train


class Watched(FakeStage):
    """Notes all its weights whenever its loss is computed."""

    def __init__(self) -> None:
        super().__init__(FakeConfig(dropout=0.2))
        self.seen: list[torch.Tensor] = []

    def forward(self, batch, randomness):
        self.seen.append(torch.cat([p.detach().flatten() for p in self.parameters()]).clone())
        return super().forward(batch, randomness)


def main(run: Path, accumulate: int) -> None:
    state = accelerate.PartialState(cpu=True)
    config = fake_config(steps=3, sam_radius=0.3, accumulate=accumulate, clip_norm=0.5)
    torch.manual_seed(0)
    stage = Watched()
    loader = FakeLoader(config.batch, state.process_index, state.num_processes)
    train(stage, loader, config, run, device="cpu")
    seen = torch.stack(stage.seen)
    torch.save(seen, run / f"seen-{state.process_index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
