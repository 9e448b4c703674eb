"""How long a picture takes on this machine, with the model's own defaults."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from judge import Judge

from unclip.evaluation.report import Row
from unclip.evaluation.statistics import mean
from unclip.options import GenerateOptions

PROMPT = "a red dragon head icon on a blue background"
REPEATS = 5


def speed(judge: Judge, model: str) -> list[Row]:
    """Seconds of one and four pictures, and of the whole command in a fresh process."""
    about = f"speed, {torch.get_num_threads()} threads of {os.cpu_count()} cores"
    rows = []
    for size, images, bar in ((256, 1, 1.0), (256, 4, 3.0), (1024, 1, 4.0)):
        if size not in judge.model.sizes:
            continue
        options = GenerateOptions(size=size, images=images, batch=images)
        seconds = timed(lambda options=options: judge.model.generate(PROMPT, options))
        what = "one image" if images == 1 else f"{images} images"
        rows.append(Row(about, f"{size} px", f"{what}, seconds", mean(seconds), bar, most=True))
    slow = torch.tensor(_restricted(model))
    rows.append(
        Row(about, "256 px", "one image with AVX2 alone, seconds", mean(slow), 3.0, most=True)
    )
    cold = timed(lambda: _cold(model), warm=0, repeats=3)
    measure = "`unclip generate` to file, seconds"
    return [*rows, Row(about, "cold", measure, mean(cold), 6.0, most=True)]


def timed(work: Callable[[], object], warm: int = 1, repeats: int = REPEATS) -> torch.Tensor:
    """Wall-clock seconds of each repetition."""
    for _ in range(warm):
        work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return torch.tensor(seconds)


def _restricted(model: str) -> list[float]:
    """Seconds of one image in a process that may use no instructions beyond AVX2."""
    script = (
        "import json, sys; sys.path.insert(0, sys.argv[2]);"
        "from speed import PROMPT, timed; from unclip.loading import load;"
        "from unclip.options import GenerateOptions;"
        "model, options = load(sys.argv[1]), GenerateOptions(size=256);"
        "print(json.dumps(timed(lambda: model.generate(PROMPT, options)).tolist()))"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-c", script, model, str(Path(__file__).parent)]
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def _cold(model: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "unclip", "generate", PROMPT, "--model", model]
        subprocess.run([*command, "-o", str(Path(folder) / "x.png")], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
