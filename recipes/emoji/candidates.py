"""What an evaluator chooses from: lists of captions with the right ones among them.

Knows the emoji vocabulary, no pictures and no models. The lists depend on the packed drawings and
on the question alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from atlas import Row
from grammar import article, countable
from scenes import Scenes

from unclip.randomness import derive_seed

CANDIDATES = 100
SAME_STYLE = 30
"""Captions of the same style and another concept among the candidates of a cell of split B."""
WORDS = 1000
"""Concepts to choose from for an unseen word (split S)."""


@dataclass(frozen=True)
class Candidate:
    """A caption with what it says."""

    caption: str
    concept: str
    style: str


def named(row: Row, style: str | None = None) -> str:
    """Caption of a drawing by its English name: ``a camel, flat cartoon style``."""
    name = row.names["en"][0]
    words = article(name) if not row.icon and countable(name, row.group == 8) else name
    return f"{words}, {style or row.art.styles[0]} style"


class Candidates:
    """Draws candidates from the words of a set of scenes.

    Args:
        source: the scenes.
    """

    def __init__(self, source: Scenes) -> None:
        emoji = [row for row in source.atlas.rows if not row.icon]
        self._one_each = list({row.concept: row for row in emoji}.values())
        self._styles = sorted({row.art.styles[0] for row in emoji})

    def cell(self, row: Row, key: str) -> list[Candidate]:
        """The right caption first, its concept in every other style, others in its style, others.

        A concept of the same name, whatever its code, is the same concept.
        """
        rng = Random(derive_seed("candidates", key))
        own = row.art.styles[0]
        styles = [own, *(style for style in self._styles if style != own)]
        found = [Candidate(named(row, style), row.concept, style) for style in styles]
        others = self._others([row], CANDIDATES - len(found), rng)
        for place, other in enumerate(others):
            style = own if place < SAME_STYLE else rng.choice(styles[1:])
            found.append(Candidate(named(other, style), other.concept, style))
        return found

    def concepts(self, row: Row, key: str) -> list[Candidate]:
        """The right caption first, then 99 other concepts in the same style."""
        rng = Random(derive_seed("candidates", key))
        style = row.art.styles[0]
        others = self._others([row], CANDIDATES - 1, rng)
        return [Candidate(named(r, style), r.concept, style) for r in (row, *others)]

    def nouns(self, right: str, rows: Sequence[Row], key: str) -> list[str]:
        """The right noun phrase first, then 99 of other concepts than those in the picture."""
        rng = Random(derive_seed("candidates", key, right))
        return [right, *(_phrase(row) for row in self._others(rows, CANDIDATES - 1, rng))]

    def words(self, concepts: Sequence[str], key: str) -> list[Candidate]:
        """Names of a thousand concepts, those the word stands for first."""
        rng = Random(derive_seed("candidates", key))
        right = [row for row in self._one_each if row.concept in set(concepts)]
        rest = self._others(right, min(WORDS, len(self._one_each)) - len(right), rng)
        return [Candidate(_phrase(row), row.concept, "") for row in (*right, *rest)]

    def _others(self, rows: Sequence[Row], count: int, rng: Random) -> list[Row]:
        """Other concepts; none of the same cluster, none that goes by the same name."""
        clusters = {row.cluster for row in rows}
        names = {name for row in rows for name in row.names["en"]}
        free = [
            row
            for row in self._one_each
            if row.cluster not in clusters and not names & set(row.names["en"])
        ]
        return rng.sample(free, min(count, len(free)))


def _phrase(row: Row) -> str:
    name = row.names["en"][0]
    return article(name) if countable(name, row.group == 8) else name
