"""What is never trained on: fixed by hashes of names, before anything is trained.

B: a concept in one family of styles. C: a concept in every style. D: a colour of a glyph, and
pairs of colours. E: two concepts together, and the mirrored order of all others. S: keywords.
(F, an unseen style, is a set that is not downloaded.)
"""

from collections.abc import Iterable
from functools import cache
from itertools import permutations

from unclip.evaluation.colours import COLOURS
from unclip.randomness import derive_seed

_DEMO = """red apple, red heart, heart, heart suit, grinning cat, cat, cat face, dragon,
dragon face, rocket, snowman, octopus, pizza, guitar, evergreen tree, deciduous tree,
crying face, castle, penguin, crown, skull, fish, rose, owl, bicycle, birthday cake, ghost,
robot, lion, balloon, tree"""
ALWAYS_TRAINED = frozenset(name.strip() for name in _DEMO.replace("\n", " ").split(","))
"""Clusters the demo's prompts name; the hash may not hold them out as whole concepts."""


def chance(*parts: str) -> float:
    """A number in [0, 1) that depends on the words alone, on every machine."""
    return derive_seed("split", *parts) / 2**63


def held_concept(cluster: str) -> bool:
    """Split C: 8 % of concept clusters, out of every style."""
    return cluster not in ALWAYS_TRAINED and chance("C", cluster) < 0.08


def held_cell(cluster: str, family: str, families: int) -> bool:
    """Split B: 10 % of (cluster, family) cells of clusters drawn in at least three families."""
    return families >= 3 and chance("B", cluster, family) < 0.10


def kept_from_evaluator(cluster: str, family: str) -> bool:
    """A fifth of the cells of B and C, on which the evaluator itself is tested.

    Whole families, since the drawings of one family resemble each other.
    """
    return chance("evaluator", cluster, family) < 0.2


def held_colour(glyph: str, colour: str) -> bool:
    """Split D: 10 % of (glyph cluster, colour) pairs."""
    return chance("D", glyph, colour) < 0.10


@cache
def held_colour_pairs() -> frozenset[tuple[str, str]]:
    """Split D: 12 of the 132 (colour, background colour) pairs."""
    pairs = sorted(permutations(COLOURS, 2), key=lambda pair: chance("D pair", *pair))
    return frozenset(pairs[:12])


def held_relation(first: str, second: str) -> bool:
    """Split E: 10 % of unordered pairs of clusters, never in one picture."""
    return chance("E", *sorted((first, second))) < 0.10


def trained_order(first: str, second: str) -> tuple[str, str]:
    """Which of two clusters training may put first (left, above, in front); E has the mirror."""
    low, high = sorted((first, second))
    return (low, high) if chance("E order", low, high) < 0.5 else (high, low)


def held_words(words: Iterable[str], language: str, named: Iterable[str]) -> list[str]:
    """Split S: keywords removed from every caption, 10 % of all.

    A word inside a name cannot be held out without its drawings, so the 10 % are drawn from the
    keywords that no name contains.

    Args:
        words: every keyword of the language.
        language: ``en`` or ``ko``.
        named: every name, style word and template word of the language.
    """
    every = sorted(set(words))
    text = " ".join(f"/{name}/" for name in named)
    if language == "en":
        parts = {piece for name in named for piece in name.replace("-", " ").split()}
        parts |= {piece.removesuffix("s") for piece in parts}
        free = [w for w in every if not parts & _stems(w)]
    else:
        free = [w for w in every if len(w) > 1 and w not in text]
    free.sort(key=lambda word: chance("S", language, word))
    return sorted(free[: round(0.10 * len(every))])


def _stems(text: str) -> set[str]:
    words = text.replace("-", " ").replace(",", " ").split()
    return {*words, *(word.removesuffix("s") for word in words)}


def contains_held(text: str, held: frozenset[str], language: str) -> bool:
    """Whether a phrase contains a held-out word: as whole words in English, anywhere in Korean."""
    if language == "ko":
        return any(word in text for word in held)
    words = text.replace("-", " ").replace(",", " ").split()
    stems = [word.removesuffix("s") for word in words]
    for start in range(len(words)):
        for stop in range(start + 1, min(start + 5, len(words)) + 1):
            if " ".join(words[start:stop]) in held or " ".join(stems[start:stop]) in held:
                return True
    return False
