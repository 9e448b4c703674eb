"""What scores are computed on: samples of the held-out splits, each with its caption.

The lists depend on the packed drawings alone. Where a caption can be turned around (colours
swapped, order mirrored), the foil says so; an evaluator must prefer the caption.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Literal

import captions
import numpy as np
from atlas import Row
from candidates import named
from captions import Shown, without_colour
from grammar import article, countable, plural
from jaxtyping import UInt8
from scenes import WHITE, Placed, Scene, Scenes, alone, arrange, copies, jittered
from splits import (
    COLOURS,
    held_colour,
    held_colour_pairs,
    held_relation,
    kept_from_evaluator,
    trained_order,
)

from unclip.evaluation.objects import Relation
from unclip.randomness import derive_seed

Split = Literal[
    "train", "B", "B trained", "C", "D", "D trained", "E", "S", "S ko", "counts", "evaluator"
]


@dataclass(frozen=True)
class Question:
    """A picture with the caption a model should know it by."""

    key: str
    caption: str
    image: UInt8[np.ndarray, "h w 3"]
    foil: str | None = None
    """A caption of other words or order that is wrong for this picture."""
    colours: tuple[str, str] | None = None
    """Named colours of glyph and background (split D)."""
    rows: tuple[Row, ...] = ()
    """The drawings in the picture, in the order of the caption."""
    korean: str | None = None
    """The same caption in Korean, where the concept has a Korean name (split B)."""
    relation: Relation | None = None
    """Where the first of two things stands (split E)."""
    number: int = 1
    """How many copies of the drawing (counts)."""
    concepts: tuple[str, ...] = ()
    """All concepts a word stands for (split S)."""


def held_out(source: Scenes, split: Split, count: int = 500) -> list[Question]:
    """The first ``count`` questions of a split.

    For comparison, ``train`` gives training scenes, ``B trained`` and ``D trained`` the questions
    of B and D with cells and colours that training shows. ``evaluator`` gives the cells of B and C
    that the evaluator was not trained on either.

    Raises:
        ValueError: there is no such split.
    """
    if split == "train":
        scenes = [source.scene(index) for index in range(count)]
        return [
            Question(f"train/{i}", scene.caption, source.compose(scene))
            for i, scene in enumerate(scenes)
        ]
    if split not in _SPLITS:
        raise ValueError(f"there is no split {split!r}; known: train, {', '.join(_SPLITS)}")
    rng = Random(derive_seed("held out", split))
    questions = []
    for scene, asked in _SPLITS[split](source, rng):
        key = f"{split}/{len(questions)}"
        rows = tuple(placed.row for placed in scene.placed)
        filled = replace(asked, key=key, caption=scene.caption, image=source.compose(scene))
        questions.append(filled if asked.number > 1 else replace(filled, rows=rows))
        if len(questions) == count:
            break
    return questions


_Item = tuple[Scene, Question]
"""A scene, and what is asked of it beside its caption."""
_NOTHING = np.zeros((1, 1, 3), np.uint8)
_STYLES = 3
"""Families a concept is drawn in, at least, if its cells can be held out."""


def _asked(**what: object) -> Question:
    return replace(Question("", "", _NOTHING), **what)


def _alone_on_white(
    rows: list[Row], rng: Random, ask: Callable[[Row], tuple[str, Question]]
) -> Iterator[_Item]:
    rng.shuffle(rows)
    for row in rows:
        ink = jittered("black", rng) if row.art.one_colour else None
        caption, asked = ask(row)
        yield Scene("held", "en", WHITE, (alone(row, rng, ink),), caption), asked


def alone_on_white(source: Scenes, row: Row) -> UInt8[np.ndarray, "h w 3"]:
    """A drawing by itself, always in the same place."""
    rng = Random(derive_seed("alone", row.number))
    ink = COLOURS["black"] if row.art.one_colour else None
    return source.compose(Scene("held", "en", WHITE, (alone(row, rng, ink),), named(row)))


def _cell(row: Row) -> tuple[str, Question]:
    korean = None
    if row.names["ko"]:
        korean = f"{row.names['ko'][0]}, {row.art.styles_ko[0]} 스타일"
    return named(row), _asked(korean=korean)


def _cells(source: Scenes, rng: Random, split: str = "B") -> Iterator[_Item]:
    """Split B: a concept in a style family it was never trained in."""
    rows = [row for row in _rows(source, split) if not row.icon]
    families: dict[str, set[str]] = {}
    for row in source.atlas.rows:
        families.setdefault(row.concept, set()).add(row.art.family)
    rows = [row for row in rows if len(families[row.concept]) >= _STYLES]
    return _alone_on_white(rows, rng, _cell)


def _concepts(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split C: a concept never trained in any style, asked for by name and keywords."""

    def ask(row: Row) -> tuple[str, Question]:
        tags = rng.sample(row.keywords["en"], min(2, len(row.keywords["en"])))
        return ", ".join((row.names["en"][0], *tags, f"{row.art.styles[0]} style")), _asked()

    return _alone_on_white([row for row in _rows(source, "C") if not row.icon], rng, ask)


def _examination(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Cells of B and C that examine the evaluator."""
    rows = [r for split in ("B", "C") for r in _rows(source, split) if not r.icon]
    rows = [row for row in rows if kept_from_evaluator(row.cluster, row.art.family)]
    return _alone_on_white(rows, rng, _cell)


def _keywords(source: Scenes, rng: Random, language: str = "en") -> Iterator[_Item]:
    """Split S: a trained drawing, asked for by keywords no caption contains."""
    held = source.atlas.held_keywords
    meanings: dict[str, list[str]] = {}
    for concept, languages in held.items():
        for word in languages.get(language, ()):
            meanings.setdefault(word, []).append(concept)
    rows = [row for row in _rows(source, "train") if not row.art.one_colour and not row.icon]
    rows = [row for row in rows if language in held.get(row.concept, {})]

    def ask(row: Row) -> tuple[str, Question]:
        word = rng.choice(held[row.concept][language])
        return word, _asked(concepts=tuple(sorted(meanings[word])))

    return _alone_on_white(rows, rng, ask)


def _colours(source: Scenes, rng: Random, trained: bool = False) -> Iterator[_Item]:
    """Split D: a glyph in a colour, or on a background, it was never trained with."""
    rows = [row for row in _rows(source, "train") if row.art.one_colour]
    names = list(COLOURS)
    while True:
        row, ink, paper = rng.choice(rows), rng.choice(names), rng.choice(names)
        unseen = held_colour(row.cluster, ink) or (ink, paper) in held_colour_pairs()
        if ink == paper or unseen == trained:
            continue
        name = without_colour(row.names["en"][0], "en")
        words = [
            f"{article(f'{a} {name} icon')} on {article(f'{b} background')}"
            for a, b in ((ink, paper), (paper, ink))
        ]
        placed = (alone(row, rng, COLOURS[ink]),)
        scene = Scene("held", "en", COLOURS[paper], placed, words[0])
        yield scene, _asked(foil=words[1], colours=(ink, paper))


def _relations(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split E: two things never seen together, or in the order never seen."""
    rows = _plain_things(source)
    while True:
        first, second = rng.sample(rows, 2)
        if first.cluster == second.cluster:
            continue
        if not held_relation(first.cluster, second.cluster):
            order = trained_order(first.cluster, second.cluster)
            if order == (first.cluster, second.cluster):
                first, second = second, first
        relation: Relation = rng.choice(("left", "above"))
        words = captions.RELATIONS[relation][0]
        one, two = (captions.phrase(shown(row)) for row in (first, second))
        boxes = arrange(relation, rng)
        placed = tuple(Placed(row, *box) for row, box in zip((first, second), boxes, strict=True))
        scene = Scene("held", "en", WHITE, placed, f"{one} {words} {two}")
        yield scene, _asked(foil=f"{two} {words} {one}", relation=relation)


def _counts(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Two to five copies of a trained drawing; training shows such numbers, of any drawing."""
    rows = _plain_things(source)
    while True:
        row, number = rng.choice(rows), rng.randint(2, 5)
        words = f"{captions.NUMBERS[number]} {plural(row.names['en'][0])}"
        placed = tuple(Placed(row, *box) for box in copies(number, rng))
        scene = Scene("held", "en", WHITE, placed, words)
        yield scene, _asked(number=number, rows=(row,))


def _plain_things(source: Scenes) -> list[Row]:
    """Drawings of the simplest style whose names take an article and a plural."""
    rows = [row for row in _rows(source, "train") if row.art.key == "twemoji"]
    return [row for row in rows if countable(row.names["en"][0], row.group == 8)]


def shown(row: Row) -> Shown:
    """A drawing as captions name it."""
    return Shown(row.names["en"][0], row.icon, row.art.styles[0], symbol=row.group == 8)


def _rows(source: Scenes, split: str) -> list[Row]:
    available = source.atlas.available
    return [row for row in source.atlas.rows if row.split == split and available[row.number]]


_SPLITS: dict[str, Callable[[Scenes, Random], Iterator[_Item]]] = {
    "B": _cells,
    "B trained": partial(_cells, split="train"),
    "C": _concepts,
    "D": _colours,
    "D trained": partial(_colours, trained=True),
    "E": _relations,
    "S": _keywords,
    "S ko": partial(_keywords, language="ko"),
    "counts": _counts,
    "evaluator": _examination,
}
