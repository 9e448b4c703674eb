"""Scenes composed from drawings: backgrounds, colours, pairs, counts; unlimited by index.

Everything a scene holds is drawn from a generator seeded by ``(seed, index)``, so any index is
the same picture and caption on every machine. Splits B to E never occur (see `splits`).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import captions
import numpy as np
from atlas import Atlas, Row
from captions import Shown, without_colour
from dictionary import Dictionary
from grammar import countable
from jaxtyping import UInt8
from splits import (
    COLOURS,
    held_colour,
    held_colour_pairs,
    held_relation,
    kept_from_evaluator,
    trained_order,
)

from unclip.data.source import Composed, Sample
from unclip.randomness import derive_seed

SHARES = {"plain": 32, "background": 14, "glyph": 12, "pair": 32, "several": 7, "icon": 3}
"""Per cent of the samples; ``several`` includes a small and a large thing."""
KOREAN = 0.18
"""Share of Korean captions, in every kind of scene."""
USUAL = {"alone": 0.3, "pair": 0.75}
"""Share that is picked from drawings in a style that need not be said; others may be, too."""
LOOKED_UP = 0.15
"""Share of English names that give way to another word, where there is a dictionary."""
JITTER = 8
"""Colours vary by this much per channel."""
UNLIMITED = 2**40
UNSEEN = 10_000_000
"""Index of a scene behind all that training sees; what is examined begins there."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One drawing in a scene of side 64; larger scenes scale all three numbers."""

    row: Row
    side: int
    x: int
    y: int
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is composed: back to front, with its caption."""

    kind: str
    language: str
    background: tuple[int, int, int]
    placed: tuple[Placed, ...]
    caption: str


class Scenes:
    """An unlimited source of captioned scenes (`unclip.data.source.BatchSource`).

    Args:
        folder: what `build.py` packed.
        size: side of the images: 64, 256 or 1024.
        seed: another seed, other scenes.
        everything: whether the held-out splits occur, too. For an evaluator, which has to know
            what it judges; never for a model that is judged.
        dictionary: whether some English names give way to words that a `Dictionary` knows for
            the same thing, though not to words of split S, nor to `reserved` ones.
    """

    def __init__(
        self,
        folder: Path | str = "cache/emoji",
        size: int = 64,
        seed: int = 0,
        everything: bool = False,
        dictionary: bool = False,
    ) -> None:
        self.atlas = Atlas(folder, size)
        self._dictionary = None
        if dictionary:
            held = {*self.atlas.held_words["en"], *reserved(self.atlas)}
            self._dictionary = Dictionary(Path(folder), held)
        self.size, self.seed, self.everything = size, seed, everything
        available = self.atlas.available
        rows = [r for r in self.atlas.rows if r.split == "train" or (everything and _known(r))]
        rows = [r for r in rows if available[r.number]]
        self._pools = {
            (kind, language): by_cluster(r for r in rows if test(r) and r.names[language])
            for language in ("en", "ko")
            for kind, test in _POOLS.items()
        }
        self._countable = {r.concept for r in rows if r.icon or _plural(r)}

    def __len__(self) -> int:
        return UNLIMITED

    def sample(self, index: int) -> Sample:
        """Return the scene at ``index`` as a sample."""
        (scene,) = self.scenes([index])
        return Sample(f"scene/{index}", (scene.caption,), self.compose(scene))

    def batch(self, indices: Sequence[int]) -> Composed:
        """Return the scenes at ``indices`` as samples."""
        scenes = self.scenes(indices)
        images = np.stack([self.compose(scene) for scene in scenes])
        keys = tuple(f"scene/{index}" for index in indices)
        return Composed(images, tuple(scene.caption for scene in scenes), keys)

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """Decide what the scenes at ``indices`` show and say, each by itself."""
        return [self.scene(index) for index in indices]

    def scene(self, index: int) -> Scene:
        """Decide what the scene at ``index`` shows and says."""
        rng = Random(derive_seed(self.seed, "scene", index))
        return self._scene(rng, rng)

    def _scene(self, look: Random, rng: Random) -> Scene:
        """``look`` decides kind, language, colours and layout; ``rng`` everything else.

        They are the same, unless scenes are to look alike.
        """
        kind = look.choices(list(SHARES), list(SHARES.values()))[0]
        language = "ko" if look.random() < KOREAN else "en"
        return getattr(self, f"_{kind}")(language, look, rng)

    def compose(self, scene: Scene) -> UInt8[np.ndarray, "size size 3"]:
        """Paint a scene."""
        scale = self.size // 64
        canvas = np.empty((self.size, self.size, 3), np.uint16)
        canvas[:] = scene.background
        for placed in scene.placed:
            pixels = self.atlas.pixels(placed.row.number, placed.side * scale)
            self._paint(canvas, pixels, placed, scale)
        return canvas.astype(np.uint8)

    @staticmethod
    def _paint(canvas: np.ndarray, pixels: np.ndarray, placed: Placed, scale: int) -> None:
        x, y, side = placed.x * scale, placed.y * scale, placed.side * scale
        limit = len(canvas)
        left, top = max(0, -x), max(0, -y)
        right, bottom = min(side, limit - x), min(side, limit - y)
        pixels = pixels[top:bottom, left:right]
        part = canvas[y + top : y + bottom, x + left : x + right]
        alpha = pixels[..., 3:].astype(np.uint16)
        if placed.colour is None:
            ours = pixels[..., :3].astype(np.uint16)
        else:
            ours = (alpha * np.array(placed.colour, np.uint16) + 127) // 255
        part[:] = np.minimum(ours + (part * (255 - alpha) + 127) // 255, 255)

    def _pick(self, kind: str, language: str, look: Random, rng: Random) -> Row:
        clusters = self._pools[kind, language]
        return rng.choice(clusters[rng.randrange(len(clusters))])

    # -- kinds of scenes ----------------------------------------------------------------------

    def _plain(self, language: str, look: Random, rng: Random, kind: str = "emoji") -> Scene:
        while True:
            usual = kind == "emoji" and look.random() < USUAL["alone"]
            row = self._pick("usual" if usual else kind, language, look, rng)
            held = row.art.one_colour and held_colour(row.cluster, "black")
            if self.everything or not held:
                break
        ink = jittered("black", rng) if row.art.one_colour else None
        shown = self.shown(row, language, rng, own_colours=True)
        words = captions.single(shown, "white" if rng.random() < 0.07 else None, language, rng)
        return Scene(kind, language, WHITE, (alone(row, rng, ink),), words)

    def _icon(self, language: str, look: Random, rng: Random) -> Scene:
        return self._plain(language if self._pools["icon", language] else "en", look, rng, "icon")

    def _background(self, language: str, look: Random, rng: Random) -> Scene:
        pool = "usual open" if look.random() < USUAL["alone"] else "open"
        row = self._pick(pool, language, look, rng)
        colour = look.choice(list(COLOURS))
        shown = self.shown(row, language, rng, own_colours=True)
        words = captions.single(shown, colour, language, rng)
        paper = WHITE if colour == "white" else jittered(colour, rng)
        return Scene("background", language, paper, (alone(row, rng),), words)

    def _glyph(self, language: str, look: Random, rng: Random) -> Scene:
        row = self._pick("glyph", language, look, rng)
        ink, paper = self._colours(row, look)
        shown = self.shown(row, language, rng, ink)
        words = captions.glyph(shown, paper, language, rng)
        placed = alone(row, rng, jittered(ink, rng))
        return Scene("glyph", language, jittered(paper, rng), (placed,), words)

    def _pair(self, language: str, look: Random, rng: Random) -> Scene:
        recoloured = look.random() < 0.35
        first, second = self._two("glyph" if recoloured else None, language, look, rng)
        paper, said = self._paper(look)
        inks: list[str | None] = [None, None]
        if recoloured:
            inks = [self._colours(row, look, paper)[0] for row in (first, second)]
        relation = look.choices(list(captions.RELATIONS), (4, 4, 2, 2))[0]
        shown = [
            self.shown(row, language, rng, ink)
            for row, ink in zip((first, second), inks, strict=True)
        ]
        words = captions.pair(*shown, relation, said, language, rng)
        boxes = arrange(relation, rng)
        placed = [
            Placed(row, *box, jittered(ink, rng) if ink else None)
            for row, box, ink in zip((first, second), boxes, inks, strict=True)
        ]
        if relation == "front":
            placed.reverse()
        ground = WHITE if paper == "white" else jittered(paper, rng)
        return Scene("pair", language, ground, tuple(placed), words)

    def _several(self, language: str, look: Random, rng: Random) -> Scene:
        paper, said = self._paper(look)
        ground = WHITE if paper == "white" else jittered(paper, rng)
        if look.random() < 0.4:
            return self._sizes(language, look, rng, ground, said)
        recoloured = look.random() < 0.4
        while True:
            row = self._pick("glyph" if recoloured else "colour", language, look, rng)
            if row.concept in self._countable:
                break
        ink = self._colours(row, look, paper)[0] if recoloured else None
        number = look.choices((2, 3, 4, 5), (4, 3, 2, 1))[0]
        words = captions.several(self.shown(row, language, rng, ink), number, said, language, rng)
        colour = jittered(ink, rng) if ink else None
        placed = tuple(Placed(row, *box, colour) for box in copies(number, rng))
        return Scene("several", language, ground, placed, words)

    def _sizes(
        self,
        language: str,
        look: Random,
        rng: Random,
        ground: tuple[int, int, int],
        said: str | None,
    ) -> Scene:
        small, large = self._two(None, language, look, rng)
        if rng.random() < 0.5:
            small, large = large, small
        shown = [self.shown(row, language, rng) for row in (small, large)]
        words = captions.sizes(*shown, said, language, rng)
        boxes = [(22, 1, 64 - 22 - rng.randint(1, 8)), (40, 23, rng.randint(8, 22))]
        if rng.random() < 0.5:
            boxes = [(side, 64 - side - x, y) for side, x, y in boxes]
        placed = tuple(Placed(row, *box) for row, box in zip((small, large), boxes, strict=True))
        return Scene("sizes", language, ground, placed, words)

    def glimpse(self, row: Row, rng: Random) -> tuple[Shown, str | None]:
        """Words for a drawing by itself, and its background if that is to be said."""
        if row.art.one_colour:
            ink, paper = self._colours(row, rng)
            return self.shown(row, "en", rng, ink), paper
        said = row.border > 0.2 and rng.random() < 0.3
        return self.shown(row, "en", rng), rng.choice(list(COLOURS)) if said else None

    # -- what they are made of ----------------------------------------------------------------

    def _two(self, kind: str | None, language: str, look: Random, rng: Random) -> tuple[Row, Row]:
        """Two drawings that may share a picture, in the order that is trained.

        Without a kind they are in colour: in usual styles, or both in the one that is said.
        """
        pool = kind or ("usual" if look.random() < USUAL["pair"] else "colour")
        while True:
            one, two = (self._pick(pool, language, look, rng) for _ in range(2))
            if (pool == "colour" or rng.random() < 0.6) and one.art is not two.art:
                continue  # mostly one style, as a person would draw
            a, b = one.cluster, two.cluster
            if a == b or (held_relation(a, b) and not self.everything):
                continue
            if self.everything:
                return one, two
            return (one, two) if trained_order(a, b) == (a, b) else (two, one)

    def _colours(self, row: Row, rng: Random, paper: str | None = None) -> tuple[str, str]:
        """A colour for a glyph, and one for its background unless that is given."""
        while True:
            ink = rng.choice(list(COLOURS))
            ground = paper or ("white" if rng.random() < 0.2 else rng.choice(list(COLOURS)))
            unseen = (ink, ground) in held_colour_pairs() or held_colour(row.cluster, ink)
            if ink != ground and (self.everything or not unseen):
                return ink, ground

    @staticmethod
    def _paper(rng: Random) -> tuple[str, str | None]:
        """Background colour of a scene of several things, and whether it is said."""
        if rng.random() < 0.6:
            return "white", ("white" if rng.random() < 0.08 else None)
        colour = rng.choice(list(COLOURS))
        return colour, colour

    def shown(
        self,
        row: Row,
        language: str,
        rng: Random,
        ink: str | None = None,
        own_colours: bool = False,
    ) -> Shown:
        names = row.names[language]
        name = names[0] if rng.random() < 0.6 else rng.choice(names)
        if self._dictionary and language == "en" and rng.random() < LOOKED_UP:
            words, weights = self._dictionary.words_for(row.concept)
            if words:
                name = rng.choices(words, weights)[0]
        if row.art.one_colour:
            name = without_colour(name, language)
        styles = row.art.styles if language == "en" else row.art.styles_ko
        words = row.keywords[language] if own_colours else ()
        if own_colours and self.everything:
            words += tuple(self.atlas.held_keywords.get(row.concept, {}).get(language, ()))
        if words and language == "en" and row.vague and rng.random() < 0.08:
            words = (*words, rng.choice(row.vague))
        return Shown(
            name=name,
            icon=row.icon or (ink is not None and rng.random() < 0.8),
            style=styles[0] if rng.random() < 0.7 else rng.choice(styles),
            colour=ink,
            symbol=row.group == 8,
            counter=_COUNTERS.get(row.group, "개"),
            keywords=words,
            usual=row.art.usual,
        )


def reserved(atlas: Atlas) -> set[str]:
    """English words that stand for nothing but themselves: names of things that training never
    draws (split C), and what captions say around names.
    """
    names: dict[bool, set[str]] = {True: set(), False: set()}
    for row in atlas.rows:
        names[row.split in ("train", "B")].update(row.names["en"])
    return {*(names[False] - names[True]), *captions.TEMPLATE_WORDS["en"].split()}


def _known(row: Row) -> bool:
    """Whether an evaluator may learn from the drawing: some of B and C examine it."""
    return row.split not in ("B", "C") or not kept_from_evaluator(row.cluster, row.art.family)


WHITE = (255, 255, 255)
_COUNTERS = {1: "명", 3: "마리"}
_POOLS = {
    "emoji": lambda r: r.art.kind == "emoji",
    "open": lambda r: r.art.kind == "emoji" and not r.art.one_colour and r.border > 0.2,
    "colour": lambda r: r.art.kind == "emoji" and not r.art.one_colour,
    "usual": lambda r: r.art.usual,
    "usual open": lambda r: r.art.usual and r.border > 0.2,
    "glyph": lambda r: r.art.one_colour,
    "icon": lambda r: r.art.kind == "icon" and not r.art.one_colour,
}


def _plural(row: Row) -> bool:
    names = row.names["en"]
    return all(countable(name, row.group == 8) and " and " not in name for name in names)


def by_cluster(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows grouped by cluster, so that 300 kinds of people do not outweigh the rest."""
    clusters: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        clusters[row.cluster].append(row)
    return list(clusters.values())


def jittered(colour: str, rng: Random) -> tuple[int, int, int]:
    """A colour near the named one."""
    red, green, blue = (
        min(255, max(0, value + rng.randint(-JITTER, JITTER))) for value in COLOURS[colour]
    )
    return red, green, blue


def alone(row: Row, rng: Random, colour: tuple[int, int, int] | None = None) -> Placed:
    side = rng.choice((46, 52, 52, 58, 58, 58))
    room = 64 - side
    middle = room // 2
    shift = min(4, middle)
    x, y = (middle + rng.randint(-shift, shift) for _ in range(2))
    return Placed(row, side, x, y, colour)


def arrange(relation: str, rng: Random) -> list[tuple[int, int, int]]:
    """(side, x, y) of the first and the second thing."""
    if relation == "front":
        back = (46, rng.randint(8, 18), rng.randint(0, 4))
        return [
            (30, rng.choice((rng.randint(0, 8), rng.randint(26, 34))), rng.randint(30, 34)),
            back,
        ]
    side = rng.choice((26, 30, 30))
    across = [rng.randint(0, 32 - side), rng.randint(32, 64 - side)]
    along = [rng.randint(max(0, 17 - 6), min(64 - side, 17 + 6)) for _ in range(2)]
    if relation == "above":
        return [(side, along[0], across[0]), (side, along[1], across[1])]
    return [(side, across[0], along[0]), (side, across[1], along[1])]


def copies(number: int, rng: Random) -> list[tuple[int, int, int]]:
    """(side, x, y) of two to five copies that do not touch."""
    middle = 17 + rng.randint(-4, 4)
    if number == 2:
        boxes = [(30, 1, middle), (30, 33, middle)]
    elif number == 3 and rng.random() < 0.5:
        boxes = [(22, x, 21 + rng.randint(-2, 2)) for x in (-1, 21, 43)]
    elif number == 3:
        boxes = [(30, 17, 1), (30, 1, 33), (30, 33, 33)]
    else:
        boxes = [(30, x, y) for x in (1, 33) for y in (1, 33)]
        if number == 5:
            boxes = [(22, x, y) for x in (1, 41) for y in (1, 41)] + [(22, 21, 21)]
    if number == 2 and rng.random() < 0.3:
        boxes = [(side, y, x) for side, x, y in boxes]
    return boxes
