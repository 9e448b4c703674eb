"""What scores are computed on: samples of the held-out splits, each with its caption.

The lists depend on the packed drawings alone. Where a caption can be turned around (colours
swapped, order mirrored), the foil says so; an evaluator must prefer the caption.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

import captions
import numpy as np
from atlas import Row
from captions import Shown, without_colour
from grammar import article, countable
from jaxtyping import UInt8
from scenes import WHITE, Placed, Scene, Scenes, alone, arrange, jittered
from splits import COLOURS, held_colour, held_colour_pairs, held_relation, trained_order

from unclip.randomness import derive_seed

Split = Literal["train", "B", "C", "D", "D trained", "E", "S"]


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


def held_out(source: Scenes, split: Split, count: int = 500) -> list[Question]:
    """The first ``count`` questions of a split.

    For comparison, ``train`` gives training scenes, ``D trained`` the questions of D with colours
    that training shows.

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
    for scene, foil, colours in _SPLITS[split](source, rng):
        key = f"{split}/{len(questions)}"
        questions.append(Question(key, scene.caption, source.compose(scene), foil, colours))
        if len(questions) == count:
            break
    return questions


def colour_grid() -> list[str]:
    """Prompts for what comes in many colours: every colour of a heart, a circle and a square."""
    return [
        article(f"{colour} {noun}") for noun in ("heart", "circle", "square") for colour in COLOURS
    ]


_Item = tuple[Scene, str | None, tuple[str, str] | None]


def _alone_on_white(rows: list[Row], rng: Random, caption: Callable[[Row], str]) -> Iterator[_Item]:
    rng.shuffle(rows)
    for row in rows:
        ink = jittered("black", rng) if row.art.one_colour else None
        yield Scene("held", "en", WHITE, (alone(row, rng, ink),), caption(row)), None, None


def _named(row: Row) -> str:
    name = row.names["en"][0]
    words = article(name) if not row.icon and countable(name, row.group == 8) else name
    return f"{words}, {row.art.styles[0]} style"


def _cells(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split B: a concept in a style family it was never trained in."""
    return _alone_on_white(_rows(source, "B"), rng, _named)


def _concepts(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split C: a concept never trained in any style."""
    return _alone_on_white(_rows(source, "C"), rng, _named)


def _keywords(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split S: a trained drawing, asked for by keywords no caption contains."""
    held = source.atlas.held_keywords
    rows = [row for row in _rows(source, "train") if row.concept in held and not row.art.one_colour]

    def caption(row: Row) -> str:
        languages = held[row.concept]
        return rng.choice(languages[rng.choice(list(languages))])

    return _alone_on_white(rows, rng, caption)


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
        yield Scene("held", "en", COLOURS[paper], placed, words[0]), words[1], (ink, paper)


def _relations(source: Scenes, rng: Random) -> Iterator[_Item]:
    """Split E: two things never seen together, or in the order never seen."""
    rows = [row for row in _rows(source, "train") if row.art.key == "twemoji"]
    rows = [row for row in rows if countable(row.names["en"][0], row.group == 8)]
    while True:
        first, second = rng.sample(rows, 2)
        if first.cluster == second.cluster:
            continue
        if not held_relation(first.cluster, second.cluster):
            order = trained_order(first.cluster, second.cluster)
            if order == (first.cluster, second.cluster):
                first, second = second, first
        relation = rng.choice(("left", "above"))
        words = captions.RELATIONS[relation][0]
        one, two = (captions.phrase(_shown(row)) for row in (first, second))
        boxes = arrange(relation, rng)
        placed = tuple(Placed(row, *box) for row, box in zip((first, second), boxes, strict=True))
        scene = Scene("held", "en", WHITE, placed, f"{one} {words} {two}")
        yield scene, f"{two} {words} {one}", None


def _shown(row: Row) -> Shown:
    return Shown(row.names["en"][0], row.icon, row.art.styles[0], symbol=row.group == 8)


def _rows(source: Scenes, split: str) -> list[Row]:
    available = source.atlas.available
    return [row for row in source.atlas.rows if row.split == split and available[row.number]]


_SPLITS: dict[str, Callable[[Scenes, Random], Iterator[_Item]]] = {
    "B": _cells,
    "C": _concepts,
    "D": _colours,
    "D trained": partial(_colours, trained=True),
    "E": _relations,
    "S": _keywords,
}
