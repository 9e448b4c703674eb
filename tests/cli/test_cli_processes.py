"""`torchrun -m unclip train`: one of the processes speaks and writes, all of them learn."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unclip.training.log import read_log

TRAIN = ["-m", "unclip", "train", "clip", "--preset", "tiny", "--device", "cpu"]
# With Adam's usual epsilon, what rounding leaves of a zero gradient makes whole steps.
for change in ("steps=4", "log_every=1", "batch=16", "eps=1e-4"):
    TRAIN += ["--set", f"training.{change}"]


@pytest.mark.slow
def test_two_processes_train_like_one(photos: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "UNCLIP_DTYPE": "fp32",
    }
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    running = {
        folder: subprocess.Popen(
            [sys.executable, *launcher, *TRAIN, str(photos), "-o", str(tmp_path / folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder, launcher in (("one", []), ("two", torchrun))
    }
    said = {folder: process.communicate(timeout=600) for folder, process in running.items()}
    for folder, process in running.items():
        out, errors = said[folder]
        assert process.returncode == 0, errors
        assert out == "clip: done after 4 steps, 64 images\n"
        names = {path.name for path in (tmp_path / folder).iterdir()}
        assert names == {"clip", "training", "unclip.json"}
    one, two = (
        read_log(tmp_path / folder / "training" / "clip" / "log.jsonl") for folder in running
    )
    for name in ("loss", "logit_scale"):
        assert two[0]["losses"][name] == pytest.approx(one[0]["losses"][name], rel=1e-5)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-4)
    curves = [[line["losses"]["loss"] for line in log] for log in (one, two)]
    assert len(curves[0]) == 4
    assert curves[1] == pytest.approx(curves[0], rel=5e-3)
