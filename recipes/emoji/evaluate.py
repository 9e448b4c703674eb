"""Judge a model trained by `train.py`: one report of everything it should be able to do.

    python recipes/emoji/evaluate.py runs/emoji           # after evaluator.py; 500 of each
    python recipes/emoji/evaluate.py runs/emoji --quick   # 32 of each, to see that it works
    python recipes/emoji/evaluate.py runs/emoji --parts colours speed
    python recipes/emoji/evaluate.py runs/emoji --from-pictures  # z_i of real pictures: no prior

Drawn with the model's own defaults, every picture from its own seed. Pictures are kept as they are
drawn: the same command again goes on where it stopped.
"""

import argparse
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import evaluator
import scores
from enlarging import enlarging
from judge import FromPictures, Judge
from rich.console import Console
from scenes import Scenes
from speed import speed

from unclip.checkpoint import WEIGHTS
from unclip.cli.tables import rows_table
from unclip.evaluation.features import load_evaluator
from unclip.evaluation.report import Report, Row, require_matplotlib
from unclip.loading import load

COUNT, QUICK = 500, 32

PARTS: dict[str, Callable[[Judge, Scenes, int], list[Row]]] = {
    "evaluator": lambda judge, source, count: scores.examine(judge, source),
    "cells": scores.cells,
    "concepts": scores.concepts,
    "colours": scores.colours,
    "relations": scores.relations,
    "words": scores.words,
    "counts": scores.counts,
    "captions": scores.training_captions,
}
LARGE_PARTS = ("distances", "upsamplers", "speed")
"""Parts that need more than scenes of 64 px."""
WITHOUT_PRIOR = ("cells", "colours", "relations", "counts", "captions")
"""Parts of 64 px that ask for what can be seen: words and unseen concepts ask the prior."""


def evaluate(
    judge: Judge, cache: Path, count: int, parts: Sequence[str], model: str = ""
) -> list[Row]:
    """The rows of the parts, ``count`` pictures of each kind."""
    source = Scenes(cache)
    rows = []
    for part in parts:
        if part in PARTS:
            rows += PARTS[part](judge, source, count)
        elif part == "distances":
            sizes = [size for size in judge.model.sizes if size <= 256]
            rows += scores.distances(judge, [Scenes(cache, size=size) for size in sizes], count)
        elif part == "upsamplers":
            rows += enlarging(judge, cache, count)
        else:
            rows += speed(judge, model)
        judge.tell(f"{part}: done")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder, or the name of a shipped model")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--evaluator", type=Path, default=evaluator.FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-evaluation"))
    parser.add_argument("--count", type=int, default=COUNT, help="pictures of each kind")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pictures of each kind")
    every = (*PARTS, *LARGE_PARTS)
    parser.add_argument("--parts", nargs="+", choices=every, default=None, help="all if unset")
    parser.add_argument(
        "--from-pictures",
        action="store_true",
        help=f"z_i of the real pictures, as by a perfect prior; for {', '.join(WITHOUT_PRIOR)}",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    possible = WITHOUT_PRIOR if arguments.from_pictures else every
    parts = arguments.parts or possible
    if impossible := [part for part in parts if part not in possible]:
        parser.error(
            f"--from-pictures has no {', '.join(impossible)}; it has {', '.join(possible)}"
        )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    require_matplotlib()
    started = time.monotonic()
    model = load(arguments.model)
    clip = load_evaluator(arguments.evaluator, model)
    drawn = arguments.out / "pictures" / f"{model.fingerprint}-{arguments.seed}"
    kind = FromPictures if arguments.from_pictures else Judge
    judge = kind(model, clip, drawn, arguments.seed, logging.info)
    count = QUICK if arguments.quick else arguments.count
    rows = evaluate(judge, arguments.cache, count, parts, arguments.model)
    weights = (arguments.evaluator / "clip" / WEIGHTS).read_bytes()
    facts = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "evaluator": hashlib.sha256(weights).hexdigest()[:12],
        "count": count,
        "z_i": "of the real pictures" if arguments.from_pictures else "drawn by the prior",
        "options": judge.options().model_dump(mode="json"),
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - started, 1),
    }
    out = arguments.out / "from-pictures" if arguments.from_pictures else arguments.out
    report = Report(f"The emoji model {model.fingerprint}", facts, rows, judge.sheets)
    report.write(out)
    Console().print(rows_table(rows))
    print(f"report and pictures: {out / 'report.html'}")


if __name__ == "__main__":
    main()
