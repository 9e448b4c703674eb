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
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import unclip
from unclip.checkpoint import WEIGHTS
from unclip.clip.clip import Clip
from unclip.evaluation.features import load_evaluator
from unclip.loading import load
from unclip.pipeline import UnCLIP

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
    ours: Callable[[Numbers], dict[str, str]]
    """What came out, in a few words for each figure or table the study shows."""
    count: int = 1000
    """Images a point unless told otherwise."""


class Stopped(Exception):  # noqa: N818 - as StopIteration, no fault
    """The time is up, or someone stopped the study: what is measured is kept."""


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
        self.train: float | None = arguments.train
        self.folder = Path(arguments.work) / study.name
        self.pictures = self.folder / "pictures"
        shutil.rmtree(self.pictures, ignore_errors=True)
        self.pictures.mkdir(parents=True)
        self.measured: Numbers = {}
        """Points by their keys: those of earlier runs are here once asked for."""
        self.seconds = 0.0
        """That these took."""
        self._started = time.monotonic()
        self._left = 0.0
        self._pace = (0.0, 0.0)  # seconds and costs of the points this run computed

    def beside(self, study: Study) -> "Setting":
        """The same for another study, whose points this one takes up."""
        other = Setting(study, self.arguments)
        other.measured, other._started = self.measured, self._started
        return other

    @cached_property
    def model(self) -> UnCLIP:
        """The model that is studied."""
        return _model(self.arguments.model)

    @cached_property
    def evaluator(self) -> Clip:
        """The CLIP that judges; the model's own is refused."""
        return _judge(self.arguments.evaluator, self.arguments.model)

    @cached_property
    def scenes(self) -> Scenes:
        """The emoji model's scenes at 64 px."""
        return Scenes(self.arguments.cache)

    def questions(self, split: str, count: int | None = None) -> list[Question]:
        """The first questions of a split of the emoji data, ``count`` of the setting's if unset."""
        return held_out(self.scenes, split, count or self.count)

    def picture(self, name: str, image: Image.Image) -> None:
        """Keep a picture; it is published beside the plot as ``NAME.png``, in 256 colours."""
        image.quantize(256).save(self.pictures / f"{name}.png", optimize=True)

    def expect(self, cost: float) -> None:
        """Say what all points to come cost together, so that the time left can be told."""
        self._left += cost

    def point(self, key: str, compute: Callable[[], Numbers], cost: float = 1.0) -> Numbers:
        """One point of a curve, computed once: an interrupted study goes on after the last one.

        Args:
            key: what sets the point apart from the study's others, such as ``guidance 2.0``.
            compute: measures it.
            cost: in any unit that all points of the study share.

        Raises:
            Stopped: the point has to be computed, and the time is up.
        """
        path = self.folder / "points.json"
        points = json.loads(path.read_text()) if path.exists() else {}
        name = f"{self._identity} {key}"
        self._left -= cost
        if name not in points:
            if (limit := self.arguments.minutes) and time.monotonic() > self._started + 60 * limit:
                raise Stopped(f"{limit:g} minutes are over")
            started = time.monotonic()
            value = compute()
            seconds = time.monotonic() - started
            self._pace = (self._pace[0] + seconds, self._pace[1] + cost)
            left = max(0.0, self._left) * self._pace[0] / self._pace[1] / 60
            self.tell(f"{key}: {seconds:.0f} s; about {left:.0f} min left")
            points[name] = {"seconds": round(seconds, 1), "value": plain(value)}
            write(path, json.dumps(points))
        self.measured[key] = points[name]["value"]
        self.seconds += points[name]["seconds"]
        return self.measured[key]

    def kept(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """A tensor that several points need, computed once and kept beside them."""
        path = self.folder / f"{self._identity}-{name}.safetensors"
        if not path.exists():
            beside = path.with_suffix(".part")
            save_file({name: compute().contiguous()}, beside)
            beside.replace(path)
        return load_file(path)[name]

    @cached_property
    def _identity(self) -> str:
        """Whatever changes the numbers: model and its defaults, evaluator, size and seed."""
        asked = self.arguments
        parts = [
            self.model.fingerprint,
            self.model.defaults.model_dump_json(),
            str(self.judged_by),
            str((self.count, self.seed, bool(asked.quick), asked.train)),
        ]
        return hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]

    @cached_property
    def judged_by(self) -> str | None:
        """Fingerprint of the evaluator, if there is one."""
        weights = self.arguments.evaluator / "clip" / WEIGHTS
        return hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights.exists() else None

    def tell(self, message: str) -> None:
        """Report progress."""
        print(f"{self.study.name}: {message}", file=sys.stderr, flush=True)


@cache
def _model(name: str) -> UnCLIP:
    return load(name)


@cache
def _judge(folder: Path, model: str) -> Clip:
    return load_evaluator(folder, _model(model))


def main(study: Study, argv: Sequence[str] | None = None) -> Path:
    """Run a study from the command line; returns the folder of its results."""
    arguments = parser(study).parse_args(argv)
    if arguments.redraw:
        results = folder_of(study, arguments)
        numbers = json.loads((results / "numbers.json").read_text())
        draw(study, numbers, results / "plot.png")
        return results
    os.nice(arguments.nice)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return run(study, arguments)
    except Stopped as stop:
        sys.exit(f"{study.name}: {stop}; the same command goes on")


def run(study: Study, arguments: argparse.Namespace) -> Path:
    """Measure and publish.

    Raises:
        Stopped: before the end; the points there are have been published, without a plot.
    """
    setting = Setting(study, arguments)
    results = folder_of(study, arguments)
    try:
        numbers = {"complete": True, **study.measure(setting)}
    except (Stopped, KeyboardInterrupt) as stop:
        if setting.measured:
            publish(setting, {"complete": False, "points": setting.measured}, results)
        raise Stopped(str(stop) or "interrupted") from None
    publish(setting, numbers, results)
    for bar in numbers.get("bars", ()):
        print(in_words(bar))
    print(results)
    return results


def folder_of(study: Study, arguments: argparse.Namespace) -> Path:
    """Where results go: those of ``--quick`` never in the place of others."""
    out = Path(arguments.work) / "quick" if arguments.quick else RESULTS
    return (arguments.out or out) / study.name


def bar(
    name: str, score: Numbers, least: float | None = None, most: float | None = None
) -> Numbers:
    """A figure, the bounds it is to keep, and whether it does."""
    value = score["value"]
    bounds = {"least": least, "most": most}
    met = (
        value is not None and (least is None or value >= least) and (most is None or value <= most)
    )
    return {"name": name, **score, **bounds, "met": met}


def in_words(bar: Numbers) -> str:
    """A bar as a line."""
    low, high = bar["least"], bar["most"]
    wanted = f"{low:g} to {high:g}" if None not in (low, high) else ""
    wanted = wanted or (f"{low:g} or more" if high is None else f"{high:g} or less")
    error = "" if bar["standard_error"] is None else f" ± {bar['standard_error']:.3g}"
    found = "none" if bar["value"] is None else f"{bar['value']:.3g}{error}"
    state = "met" if bar["met"] else "not met"
    return f"{state:<8} {bar['name']}: {found} (n = {bar['n']}), wanted {wanted}"


def parser(study: Study) -> argparse.ArgumentParser:
    """The options all studies share."""
    options = argparse.ArgumentParser(description=f"{study.about} ({study.shows})")
    add_options(options)
    options.add_argument("--count", type=int, default=study.count, help="images a point")
    options.add_argument("--redraw", action="store_true", help="only plot the numbers again")
    return options


def add_options(options: argparse.ArgumentParser) -> None:
    """Those that do not differ from study to study."""
    options.add_argument("--model", default="emoji", help="a shipped model's name, or a folder")
    options.add_argument("--evaluator", type=Path, default=ROOT / "recipes/emoji/models/evaluator")
    options.add_argument("--cache", type=Path, default=ROOT / "cache/emoji")
    options.add_argument("--quick", action="store_true", help=f"{QUICK} images a point")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--minutes", type=float, help="begin no new point after so long")
    options.add_argument("--train", type=float, help="minutes of training, where a study trains")
    options.add_argument("--work", type=Path, default=ROOT / "runs/experiments")
    options.add_argument("--out", type=Path, help="results/, or for --quick WORK/quick")
    options.add_argument("--nice", type=int, default=10)


def publish(setting: Setting, numbers: Numbers, results: Path) -> None:
    """Write numbers, plot, pictures and how they were made; all of them or none."""
    beside = results.with_name(f".{results.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(setting.pictures, beside)
    values = json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False)
    (beside / "numbers.json").write_text(values + "\n", encoding="utf-8")
    if numbers["complete"]:
        draw(setting.study, json.loads(values), beside / "plot.png")
    made = json.dumps(how(setting), indent=2, ensure_ascii=False)
    (beside / "made.json").write_text(made + "\n", encoding="utf-8")
    shutil.rmtree(results, ignore_errors=True)
    beside.rename(results)


def how(setting: Setting) -> Numbers:
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
        "minutes of training": setting.train,
        "seconds": round(setting.seconds),
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


def plain(value: Numbers) -> Numbers:
    """As it will be read back; NaN is refused."""
    return json.loads(json.dumps(value, allow_nan=False))


def write(path: Path, text: str) -> None:
    """Replace a file in one piece."""
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
