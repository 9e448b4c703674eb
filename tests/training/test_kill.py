"""A real training in a process of its own, killed with SIGKILL again and again, then compared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unclip.training.log import read_log
from unclip.training.state import latest_state, read_progress

SCRIPT = Path(__file__).with_name("fake_stage.py")
OPTIONS = ["--set", "steps=150", "save_every=10", "log_every=2", "precision=bf16"]


def start(run):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(SCRIPT), str(run), *OPTIONS]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def logged(run):
    lines = read_log(run / "log.jsonl")
    return lines[-1]["step"] if lines else 0


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights(tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    beside = start(straight)
    for wanted in (25, 80):
        process = start(killed)
        while logged(killed) < wanted:
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.003)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert read_progress(latest_state(killed)).step < 150
    for process in (start(killed), beside):
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors.decode()

    first, second = latest_state(straight), latest_state(killed)
    assert first.name == second.name == "step-00000150"
    for name in ("raw.safetensors", "ema.safetensors", "optimizer.safetensors"):
        mine, theirs = load_file(first / name), load_file(second / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert (straight / "fake" / "weights.safetensors").read_bytes() == (
        killed / "fake" / "weights.safetensors"
    ).read_bytes()
    lines = [
        [(line["step"], line["losses"]) for line in read_log(run / "log.jsonl")]
        for run in (straight, killed)
    ]
    assert lines[0] == lines[1]
    assert len(list((killed / "state").iterdir())) == 1
