"""Two processes see what one with twice their batch sees, and learn the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unclip.training.log import read_log

SCRIPT = Path(__file__).with_name("fake_stage.py")
OPTIONS = ["--set", "steps=10", "log_every=1", "clip_norm=0.5"]


@pytest.mark.slow
def test_two_processes_learn_what_one_with_twice_the_batch_learns(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    one, two = tmp_path / "one", tmp_path / "two"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    running = [
        subprocess.Popen(
            [sys.executable, *arguments, str(SCRIPT), str(run), *OPTIONS, "--dropout", "0"],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for arguments, run in (([], one), (launcher, two))
    ]
    for process in running:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()

    curves = [[line["losses"] for line in read_log(run / "log.jsonl")] for run in (one, two)]
    assert len(curves[0]) == len(curves[1]) == 10
    for alone, together in zip(*curves, strict=True):
        assert together == pytest.approx(alone, rel=1e-4, abs=1e-5)
    assert curves[0][-1]["loss"] < 0.8 * curves[0][0]["loss"]
    weights = [load_file(run / "fake" / "weights.safetensors") for run in (one, two)]
    for name, alone in weights[0].items():
        torch.testing.assert_close(weights[1][name], alone, rtol=1e-3, atol=1e-4)
