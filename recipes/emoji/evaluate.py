"""Judge a model trained by `train.py`: captions, colours and order; a report and pictures.

    python recipes/emoji/evaluate.py runs/emoji           # after evaluator.py
    python recipes/emoji/evaluate.py runs/emoji --quick   # 32 of each, to see that it works

Drawn at 64 px with the model's own defaults, every picture from its own seed.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

import evaluator
import numpy as np
import scores
import torch
from held_out import Question, Split, held_out
from jaxtyping import UInt8
from PIL import Image
from rich.console import Console
from rich.table import Table
from scenes import Scenes
from scores import Score, share, share_of

from unclip.checkpoint import WEIGHTS, load_stage
from unclip.clip.clip import Clip
from unclip.images import contact_sheet, to_pil, to_tensor
from unclip.loading import load
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness, derive_seed
from unclip.runtime import choose_runtime
from unclip.types import finish

Pictures = UInt8[np.ndarray, "n 64 64 3"]

COUNT, QUICK = 200, 32
BATCH = 32
SHOWN = 32


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    about: str
    pictures: str
    """``real``, ``drawn`` from the caption alone, or ``drawn from z_i`` of the real picture."""
    measure: str
    score: Score
    bar: float | None = None
    """What the score should reach."""


class Judge:
    """The evaluator, and whom it judges.

    Args:
        model: the model.
        clip: the evaluator.
        seed: of all that is drawn.
    """

    def __init__(self, model: UnCLIP, clip: Clip, seed: int = 0) -> None:
        self.model, self.clip, self.seed = model, clip, seed
        self.options = GenerateOptions(size=64, batch=BATCH).over(model.defaults)
        self.sheets: dict[str, Image.Image] = {}

    def draw(self, questions: Sequence[Question], from_real: bool = False) -> Pictures:
        """One picture for each caption, of 8 bits like any picture that is saved.

        Args:
            questions: what to draw.
            from_real: leave the prior out and give the decoder z_i of the real picture.
        """
        drawn = []
        for start in range(0, len(questions), BATCH):
            part = questions[start : start + BATCH]
            randomness = Randomness([derive_seed(self.seed, question.key) for question in part])
            text = self.model.encode_text([question.caption for question in part])
            if from_real:
                z_i = self.model.encode_image(_tensors(_images(part)))
            else:
                z_i = finish(self.model.embed(text, self.options, randomness))
            images = finish(self.model.decode(z_i, text, self.options, randomness))
            drawn += [np.asarray(to_pil(image)) for image in images]
        return np.stack(drawn)

    def captions(self, questions: Sequence[Question]) -> list[Row]:
        """Retrieval among these captions, for real and drawn pictures."""
        real = _images(questions)
        kinds = {
            "real": real,
            "drawn": self.draw(questions),
            "drawn from z_i": self.draw(questions, from_real=True),
        }
        self._show("captions", questions, list(kinds.values()))
        text = self._embed_text([question.caption for question in questions])
        rows, about = [], "training captions"
        reference: dict[str, scores.Hits] = {}
        for kind, pictures in kinds.items():
            image = self._embed_images(pictures)
            found = {
                "caption by image, R@1": scores.retrieved(image, text),
                "image by caption, R@1": scores.retrieved(text, image),
                "caption by image, R@5": scores.retrieved(image, text, k=5),
            }
            rows += [Row(about, kind, measure, share(hits)) for measure, hits in found.items()]
            if kind == "real":
                reference = found
                continue
            bar = 0.3 if kind == "drawn" else None
            rows += [
                Row(
                    about,
                    kind,
                    f"{measure}, share of real",
                    share_of(hits, reference[measure]),
                    bar,
                )
                for measure, hits in found.items()
                if measure.endswith("R@1")
            ]
        return rows

    def colours(self, about: str, questions: Sequence[Question], bar: float | None) -> list[Row]:
        """Colour binding, by pixels; on real pictures it is the measure that is tested."""
        asked = [question.colours for question in questions]
        swapped = [(paper, ink) for ink, paper in asked]
        kinds = {"real": _images(questions), "drawn": self.draw(questions)}
        self._show(about, questions, list(kinds.values()))
        rows, bars = [], {"drawn": bar}
        for kind, pictures in kinds.items():
            right = scores.coloured(pictures, asked)
            wrong = scores.coloured(pictures, swapped).all(axis=1)
            rows += [
                Row(about, kind, "glyph and background", share(right.all(axis=1)), bars.get(kind)),
                Row(about, kind, "glyph", share(right[:, 0])),
                Row(about, kind, "background", share(right[:, 1])),
                Row(about, kind, "the two swapped", share(wrong)),
            ]
        return rows

    def order(self, about: str, questions: Sequence[Question]) -> list[Row]:
        """Whether a picture of two things is nearer to its caption than to the mirrored one."""
        captions = self._embed_text([question.caption for question in questions])
        foils = self._embed_text([question.foil for question in questions])
        kinds = {"real": _images(questions), "drawn": self.draw(questions)}
        self._show(about, questions, list(kinds.values()))
        rows = []
        for kind, pictures in kinds.items():
            hits = scores.preferred(self._embed_images(pictures), captions, foils)
            rows.append(Row(about, kind, "caption before its mirror", share(hits)))
        return rows

    def _embed_images(self, pictures: Pictures) -> np.ndarray:
        parts = torch.from_numpy(pictures.copy()).split(BATCH)
        return torch.cat([self.clip.encode_image(_tensors(p.numpy())) for p in parts]).cpu().numpy()

    def _embed_text(self, captions: Sequence[str]) -> np.ndarray:
        return self.clip.encode_text(captions, warn=False).embedding.cpu().numpy()

    def _show(self, about: str, questions: Sequence[Question], kinds: Sequence[Pictures]) -> None:
        """Keep a sheet of the first pictures: in each cell the real one, then what was drawn."""
        cells = []
        for i in range(min(SHOWN, len(questions))):
            row = Image.fromarray(np.concatenate([kind[i] for kind in kinds], axis=1))
            cells.append(row.resize((2 * row.width, 2 * row.height), Image.Resampling.NEAREST))
        words = [question.caption for question in questions[:SHOWN]]
        self.sheets[about] = contact_sheet(cells, 4, words)


def evaluate(judge: Judge, source: Scenes, count: int) -> list[Row]:
    """All rows of the report, ``count`` pictures each."""
    asked = {split: held_out(source, split, count) for split in ("D trained", "D", "E")}
    return [
        *judge.captions(distinct(source, count)),
        *judge.colours("colours, trained pairs", asked["D trained"], bar=0.6),
        *judge.colours("colours, unseen pairs", asked["D"], bar=None),
        *judge.order("order, unseen pairs", asked["E"]),
    ]


def distinct(source: Scenes, count: int, split: Split = "train") -> list[Question]:
    """The first ``count`` questions whose captions differ: else no retrieval could be right."""
    taken = {q.caption: q for q in reversed(held_out(source, split, 2 * count))}
    found = sorted(taken.values(), key=lambda question: int(question.key.split("/")[-1]))
    return found[:count]


def report_of(judge: Judge, rows: Sequence[Row], judged_by: str, seconds: float) -> dict[str, Any]:
    """The report as JSON values; a ratio that does not exist is null."""
    values = [asdict(row) for row in rows]
    for row in values:
        row["score"] = {k: None if isnan(v) else round(v, 4) for k, v in row["score"].items()}
    return {
        "model": judge.model.name,
        "fingerprint": judge.model.fingerprint,
        "evaluator": judged_by,
        "options": judge.options.model_dump(mode="json"),
        "seed": judge.seed,
        "seconds": round(seconds, 1),
        "rows": values,
    }


def table_of(rows: Sequence[Row]) -> Table:
    """The report for people."""
    table = Table("about", "pictures", "measure", "score", "±", "n", "bar")
    last = ""
    for row in rows:
        score = row.score
        numbers = (f"{score.value:.3f}", f"{score.standard_error:.3f}", str(score.n))
        if last not in ("", row.about):
            table.add_section()
        about = "" if row.about == last else row.about
        table.add_row(about, row.pictures, row.measure, *numbers, str(row.bar or ""))
        last = row.about
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a model folder, or the name of a shipped model")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--evaluator", type=Path, default=evaluator.FOLDER)
    parser.add_argument("--out", type=Path, default=Path("runs/emoji-evaluation"))
    parser.add_argument("--count", type=int, default=COUNT, help="pictures of each kind")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} pictures of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.monotonic()
    # The evaluator is small: full precision keeps its verdicts the same on every machine.
    clip = load_stage(arguments.evaluator / "clip", choose_runtime(precision="fp32"))
    judge = Judge(load(arguments.model), clip, arguments.seed)
    count = QUICK if arguments.quick else arguments.count
    rows = evaluate(judge, Scenes(arguments.cache), count)
    weights = (arguments.evaluator / "clip" / WEIGHTS).read_bytes()
    judged_by = hashlib.sha256(weights).hexdigest()[:12]
    report = report_of(judge, rows, judged_by, time.monotonic() - started)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    for about, sheet in judge.sheets.items():
        sheet.save(arguments.out / f"{about.replace(', ', '-').replace(' ', '-')}.png")
    Console().print(table_of(rows))
    print(f"report and pictures: {arguments.out}")


def _images(questions: Sequence[Question]) -> Pictures:
    return np.stack([question.image for question in questions])


def _tensors(pictures: Pictures) -> torch.Tensor:
    return torch.stack([to_tensor(picture) for picture in pictures])


if __name__ == "__main__":
    main()
