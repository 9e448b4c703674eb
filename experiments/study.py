"""The frame of every study: a claim of the paper, measured, plotted, kept with how it was made.

A study is one module: a function that measures, a function that plots, and a `Study` that names
both. This module knows the command line, the working folder and what is written; no metric.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import unclip
from unclip.checkpoint import WEIGHTS, load_stage
from unclip.clip.clip import Clip
from unclip.loading import load
from unclip.pipeline import UnCLIP
from unclip.runtime import choose_runtime

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.append(str(ROOT / "recipes" / "emoji"))

from held_out import Question, held_out  # noqa: E402
from scenes import Scenes  # noqa: E402

RESULTS = HERE / "results"
QUICK = 16
"""Images a point with ``--quick``: enough to see that a study runs."""

Numbers = dict[str, Any]
"""JSON values: what a study writes, and all its plot is drawn from."""


@dataclass(frozen=True)
class Study:
    """What a study is called, what it shows, and how."""

    name: str
    """Folder below ``experiments/results``."""
    shows: str
    """Figure, table or section of the paper."""
    about: str
    """The question, in one line."""
    measure: "Callable[[Setting], Numbers]"
    plot: Callable[[Numbers, Any], None]
    """Draws numbers into an empty matplotlib figure."""
    count: int = 1000
    """Images a point unless told otherwise."""


class Setting:
    """What a study works with; models and data are opened when first asked for.

    Args:
        study: the study.
        arguments: of the command line, see `parser`.
    """

    def __init__(self, study: Study, arguments: argparse.Namespace) -> None:
        self.study, self.arguments = study, arguments
        self.count: int = QUICK if arguments.quick else arguments.count
        self.seed: int = arguments.seed
        self.minutes: float | None = arguments.minutes
        self.folder = Path(arguments.work) / study.name
        self.pictures = self.folder / "pictures"
        self.pictures.mkdir(parents=True, exist_ok=True)

    @cached_property
    def model(self) -> UnCLIP:
        """The model that is studied."""
        return load(self.arguments.model)

    @cached_property
    def evaluator(self) -> Clip:
        """The CLIP that judges; in float32, so that every machine gives the same verdict."""
        return load_stage(self.arguments.evaluator / "clip", choose_runtime(precision="fp32"))

    @cached_property
    def scenes(self) -> Scenes:
        """The emoji model's scenes at 64 px."""
        return Scenes(self.arguments.cache)

    def questions(self, split: str, count: int | None = None) -> list[Question]:
        """The first questions of a split of the emoji data, ``count`` of the setting's if unset."""
        return held_out(self.scenes, split, count or self.count)

    def picture(self, name: str, image: Image.Image) -> None:
        """Keep a picture; it is published beside the plot as ``NAME.png``."""
        image.save(self.pictures / f"{name}.png")

    def point(self, key: str, compute: Callable[[], Numbers]) -> Numbers:
        """One point of a curve, computed once: an interrupted study goes on after the last one.

        Args:
            key: what sets the point apart from the study's others, such as ``guidance 2.0``.
            compute: measures it.
        """
        path = self.folder / "points.json"
        points = json.loads(path.read_text()) if path.exists() else {}
        name = f"{self._identity} {key}"
        if name not in points:
            started = time.monotonic()
            value = compute()
            self.tell(f"{key}: {time.monotonic() - started:.0f} s")
            points[name] = json.loads(json.dumps(value, allow_nan=False))
            write(path, json.dumps(points, indent=1))
        return points[name]

    @cached_property
    def _identity(self) -> str:
        """Whatever changes the numbers: model, evaluator, count and seed."""
        parts = [self.model.fingerprint, str(self.judged_by), str(self.count), str(self.seed)]
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]

    @cached_property
    def judged_by(self) -> str | None:
        """Fingerprint of the evaluator, if there is one."""
        weights = self.arguments.evaluator / "clip" / WEIGHTS
        return hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights.exists() else None

    def tell(self, message: str) -> None:
        """Report progress."""
        print(f"{self.study.name}: {message}", file=sys.stderr, flush=True)


def main(study: Study, argv: Sequence[str] | None = None) -> Path:
    """Run a study from the command line; returns the folder of its results."""
    arguments = parser(study).parse_args(argv)
    results = Path(arguments.out) / study.name
    if arguments.redraw:
        numbers = json.loads((results / "numbers.json").read_text())
        draw(study, numbers, results / "plot.png")
        return results
    os.nice(arguments.nice)
    setting = Setting(study, arguments)
    started = time.monotonic()
    numbers = study.measure(setting)
    publish(setting, numbers, results, time.monotonic() - started)
    print(results)
    return results


def parser(study: Study) -> argparse.ArgumentParser:
    """The options all studies share."""
    options = argparse.ArgumentParser(description=f"{study.about} ({study.shows})")
    options.add_argument("--model", default="emoji", help="a shipped model's name, or a folder")
    options.add_argument("--evaluator", type=Path, default=ROOT / "runs/emoji-evaluator")
    options.add_argument("--cache", type=Path, default=ROOT / "cache/emoji")
    options.add_argument("--count", type=int, default=study.count, help="images a point")
    options.add_argument("--quick", action="store_true", help=f"{QUICK} images a point")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--minutes", type=float, help="budget of what is trained, if any")
    options.add_argument("--work", type=Path, default=ROOT / "runs/experiments")
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--redraw", action="store_true", help="only plot the numbers again")
    options.add_argument("--nice", type=int, default=10)
    return options


def publish(setting: Setting, numbers: Numbers, results: Path, seconds: float) -> None:
    """Write numbers, plot, pictures and how they were made; all of them or none."""
    beside = results.with_name(f".{results.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(setting.pictures, beside)
    values = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False)
    (beside / "numbers.json").write_text(values + "\n", encoding="utf-8")
    draw(setting.study, json.loads(values), beside / "plot.png")
    made = json.dumps(how(setting, seconds), indent=2, ensure_ascii=False)
    (beside / "made.json").write_text(made + "\n", encoding="utf-8")
    shutil.rmtree(results, ignore_errors=True)
    beside.rename(results)


def how(setting: Setting, seconds: float) -> Numbers:
    """How results were made: enough to make them again, and to judge them."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "shows": setting.study.shows,
        "about": setting.study.about,
        "model": setting.model.name,
        "fingerprint": setting.model.fingerprint,
        "evaluator": setting.judged_by,
        "count": setting.count,
        "seed": setting.seed,
        "minutes": setting.minutes,
        "seconds": round(seconds),
        "software": {
            "unclip": unclip.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "commit": commit.stdout.strip() or None,
        },
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
    }


def draw(study: Study, numbers: Numbers, path: Path) -> None:
    """Plot numbers into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.5), layout="constrained", dpi=120)
    study.plot(numbers, figure)
    figure.savefig(path)


def write(path: Path, text: str) -> None:
    """Replace a file in one piece."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
