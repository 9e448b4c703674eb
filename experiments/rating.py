"""Table 1 by people: which picture looks better, which fits better, which group varies more.

    python experiments/rating.py make --output rating        # a page; open rating/index.html
    python experiments/rating.py count choices.json          # what people chose, with intervals

The page needs no server. Sides are shuffled and unnamed; choices stay in the browser until they
are downloaded. As in the paper, "not sure" counts for neither, and intervals are ±1.96 √(p(1−p)/n).
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image

from unclip.errors import DataError
from unclip.evaluation.statistics import Score, share
from unclip.randomness import derive_seed

HERE = Path(__file__).parent
QUESTIONS = {
    "photorealism": "Which picture looks better made?",
    "caption": "Which picture fits the words better?",
    "diversity": "Which of the two groups varies more?",
}
GRID = 2
"""Pictures a side in the groups whose diversity is compared."""
CHOICES = ("left", "right", "not sure")


@dataclass(frozen=True)
class Comparison:
    """One question to a person; ``left`` says whose picture is on the left."""

    key: str
    question: str
    caption: str
    left: str
    right: str


def tally(choices: Iterable[dict], ours: str) -> dict[str, Score]:
    """How often ``ours`` was preferred, among those who were sure, for each question.

    Args:
        choices: downloaded from the page: ``question``, ``left``, ``right``, ``choice``.
        ours: name of the side whose share is wanted.

    Raises:
        DataError: a choice is none, or compares others.
    """
    wins: dict[str, list[bool]] = {}
    for number, choice in enumerate(choices, start=1):
        if choice.get("choice") not in CHOICES or choice.get("question") not in QUESTIONS:
            raise DataError(f"choice {number} is none of this page: {choice}")
        if ours not in (choice["left"], choice["right"]) or choice["left"] == choice["right"]:
            raise DataError(f"choice {number} does not compare {ours!r} with another: {choice}")
        if choice["choice"] != "not sure":
            won = choice[choice["choice"]] == ours
            wins.setdefault(choice["question"], []).append(won)
    return {name: share(torch.tensor(wins[name])) for name in QUESTIONS if name in wins}


def arrange(captions: Sequence[str], sides: tuple[str, str], seed: int) -> list[Comparison]:
    """Every question about every caption, sides and order shuffled."""
    found = []
    for number, caption in enumerate(captions):
        for question in QUESTIONS:
            rng = Random(derive_seed(seed, "rating", number, question))
            left, right = rng.sample(sides, 2)
            found.append(Comparison(f"{number:04}", question, caption, left, right))
    Random(derive_seed(seed, "rating order")).shuffle(found)
    return found


def write_page(
    folder: Path, comparisons: Sequence[Comparison], pictures: dict[str, list[np.ndarray]]
) -> None:
    """Write the page and its pictures.

    Args:
        folder: must not exist.
        comparisons: the questions.
        pictures: of each side for each caption, [takes h w 3], the first for single pictures.

    Raises:
        DataError: the folder exists.
    """
    if folder.exists():
        raise DataError(f"{folder} exists; choose another --output")
    beside = folder.with_name(f".{folder.name}.part")
    (beside / "pictures").mkdir(parents=True, exist_ok=True)
    items = []
    for number, one in enumerate(comparisons):
        names = {}
        for side, whose in (("left", one.left), ("right", one.right)):
            takes = pictures[whose][int(one.key)]
            image = _grid(takes) if one.question == "diversity" else Image.fromarray(takes[0])
            # Names that tell nothing: a rater who looks at the address must stay blind.
            names[side] = f"pictures/{derive_seed(number, side):016x}.png"
            image.save(beside / names[side])
        items.append(
            {
                "key": one.key,
                "question": one.question,
                "caption": one.caption,
                "left": one.left,
                "right": one.right,
                "pictures": names,
            }
        )
    page = (HERE / "rating.html").read_text(encoding="utf-8")
    # "</" would end the script element that holds the data.
    data = json.dumps({"questions": QUESTIONS, "items": items}, ensure_ascii=False)
    page = page.replace("/*DATA*/ null", data.replace("</", "<\\/"))
    (beside / "index.html").write_text(page, encoding="utf-8")
    beside.rename(folder)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="draw pictures and write the page")
    make.add_argument("--model", default="emoji")
    make.add_argument("--cache", type=Path, default=HERE.parent / "cache/emoji")
    make.add_argument("--count", type=int, default=100, help="captions; three questions each")
    make.add_argument("--seed", type=int, default=0)
    make.add_argument("--output", type=Path, default=Path("rating"))
    count = commands.add_parser("count", help="count downloaded choices")
    count.add_argument("choices", nargs="+", type=Path)
    count.add_argument("--ours", default="unCLIP")
    arguments = parser.parse_args(argv)
    if arguments.command == "make":
        _make(arguments)
    else:
        choices = [one for path in arguments.choices for one in json.loads(path.read_text())]
        for question, score in tally(choices, arguments.ours).items():
            print(
                f"{question:<13} {arguments.ours} preferred {100 * score.value:.1f} % "
                f"± {100 * score.interval:.1f} (n = {score.n})"
            )


def _make(arguments: argparse.Namespace) -> None:
    from measures import pictures
    from study import Setting, Study, parser

    # A study for its setting alone: people measure.
    study = Study(
        "rating", "Table 1", "Human evaluation", lambda _: {}, lambda *_: None, ours=lambda _: {}
    )
    words = [f"--{n}={getattr(arguments, n)}" for n in ("model", "cache", "count", "seed")]
    setting = Setting(study, parser(study).parse_args(words))
    questions = setting.questions("B")
    sides = {"unCLIP": "prior", "caption alone": "caption"}
    drawn = {
        name: np.stack(
            [pictures(setting, questions, None, condition, take) for take in range(GRID**2)],
            axis=1,
        )
        for name, condition in sides.items()
    }
    captions = [question.caption for question in questions]
    comparisons = arrange(captions, ("unCLIP", "caption alone"), arguments.seed)
    write_page(arguments.output, comparisons, {name: list(rows) for name, rows in drawn.items()})
    print(arguments.output / "index.html", file=sys.stderr)


def _grid(takes: np.ndarray) -> Image.Image:
    rows = [np.concatenate(list(takes[i : i + GRID]), axis=1) for i in range(0, GRID**2, GRID)]
    return Image.fromarray(np.concatenate(rows))


if __name__ == "__main__":
    main()
