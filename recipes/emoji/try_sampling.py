"""What each sampling default is worth: pictures by other options, judged as `evaluate.py` does.

    python recipes/emoji/try_sampling.py runs/emoji --count 200

Every row differs from the model's own defaults in what it says alone. Captions, seeds and judge are
the same for all; pictures are of 64 px, and kept as they are drawn, with the figures. ``seconds`` a
picture are of this machine while it drew them, and missing where they had been drawn before.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import evaluator
import scores
from candidates import Candidates
from held_out import held_out
from judge import BestOf, Judge
from rich.console import Console
from rich.table import Table
from scenes import Scenes

from unclip.evaluation.features import load_evaluator
from unclip.evaluation.retrieval import retrieved
from unclip.evaluation.statistics import Score, share
from unclip.loading import load
from unclip.options import GenerateOptions

TRIALS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "one candidate": {"candidates": 1},
    "eight candidates": {"candidates": 8},
    "prior: no guidance": {"prior": {"guidance": 1.0}},
    "prior: guidance 5": {"prior": {"guidance": 5.0}},
    "prior: 8 steps": {"prior": {"steps": 8}},
    "prior: 32 steps": {"prior": {"steps": 32}},
    "decoder: no guidance": {"decoder": {"guidance": 1.0}},
    "decoder: guidance 2": {"decoder": {"guidance": 2.0}},
    "decoder: guidance 5": {"decoder": {"guidance": 5.0}},
    "decoder: guided everywhere": {"decoder": {"guidance_interval": None}},
    "decoder: guided from 0.3 to 0.8": {"decoder": {"guidance_interval": (0.3, 0.8)}},
    "decoder: 8 steps": {"decoder": {"steps": 8}},
    "decoder: 28 steps": {"decoder": {"steps": 28}},
    "decoder: to the end": {"decoder": {"end": 0.0}},
    "decoder: ddim, 14 steps": {"decoder": {"sampler": "ddim"}},
    "decoder: ddim, 50 steps": {"decoder": {"sampler": "ddim", "steps": 50}},
    "decoder: unipc, 14 steps": {"decoder": {"sampler": "unipc"}},
    "decoder: ancestral, 50 steps": {"decoder": {"sampler": "ancestral", "steps": 50}},
}

CHOSEN = "best of four pictures"
"""The one trial that changes no option: the model's CLIP chooses among pictures of four seeds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder, or the name of a shipped model")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--evaluator", type=Path, default=evaluator.FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-sampling"))
    parser.add_argument("--count", type=int, default=200, help="pictures of each kind")
    parser.add_argument("--trials", nargs="+", choices=[*TRIALS, CHOSEN], default=[*TRIALS, CHOSEN])
    arguments = parser.parse_args()
    model, source = load(arguments.model), Scenes(arguments.cache)
    eyes = load_evaluator(arguments.evaluator, model)
    defaults, rows = model.defaults, {}
    for name in arguments.trials:
        model.defaults = changed(defaults, TRIALS.get(name, {}))
        folder = arguments.out / model.fingerprint / name.replace(": ", "-").replace(" ", "-")
        judge = BestOf if name == CHOSEN else Judge
        rows[name] = measured(judge(model, eyes, folder), source, arguments.count)
        print(name, *map(told, rows[name].values()), sep="  ", flush=True)
    path = arguments.out / model.fingerprint / f"sampling-{arguments.count}.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    said |= {name: {k: told(v) for k, v in row.items()} for name, row in rows.items()}
    path.write_text(json.dumps(said, indent=2))
    grid = Table("differs in", *next(iter(rows.values())))
    for name, row in said.items():
        grid.add_row(name, *row.values())
    Console().print(grid)


def told(value: Score | float | None) -> str:
    """As a table shows it."""
    if isinstance(value, Score):
        return f"{value.value:.3f} ± {value.standard_error:.3f}"
    return "" if value is None else f"{value:.3f}"


def changed(defaults: GenerateOptions, change: Mapping[str, Any]) -> GenerateOptions:
    """Options that differ in some fields, of a stage or of all."""
    stages = {
        key: getattr(defaults, key).updated(value) if isinstance(value, Mapping) else value
        for key, value in change.items()
    }
    return defaults.updated(stages)


def measured(judge: Judge, source: Scenes, count: int) -> dict[str, Score | float | None]:
    """Rates of right pictures, not corrected for chance: rows differ in nothing but options."""
    cells, captions = held_out(source, "B", count), scores.distinct(source, count)
    fresh, started = not judge.folder.exists(), time.perf_counter()
    drawn = {kind: judge.draw(kind, q) for kind, q in (("B", cells), ("train", captions))}
    seconds = (time.perf_counter() - started) / (len(cells) + len(captions))
    candidates = Candidates(source)
    hits = scores.cell_hits(judge, drawn["B"], [candidates.cell(q.rows[0], q.key) for q in cells])
    text = judge.read([question.caption for question in captions])
    found = {f"B, {what}": share(hit) for what, hit in hits.items()}
    found["training captions"] = share(retrieved(judge.see(drawn["train"]), text))
    found["two things"] = next(
        row.score for row in scores.relations(judge, source, count) if row.pictures == "drawn"
    )
    return {**found, "seconds": seconds if fresh else None}


if __name__ == "__main__":
    main()
