"""Which drawn concepts the words of English stand for, as `word_vectors.py` found.

Knows words and concepts, no vectors.
"""

from collections import defaultdict
from collections.abc import Container, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from unclip.errors import DataError

FILE = "dictionary.npz"


class Dictionary:
    """Words and what they may stand for.

    Args:
        folder: where `build.py` and `word_vectors.py` packed their files.
        held: words that `words_for` never gives.

    Raises:
        DataError: nobody has looked words up yet.
    """

    def __init__(self, folder: Path, held: Iterable[str] = ()) -> None:
        if not (folder / FILE).exists():
            raise DataError(
                f"{folder} has no {FILE}; run python recipes/emoji/word_vectors.py --cache {folder}"
            )
        packed = np.load(folder / FILE)
        self.words: list[str] = packed["words"].tolist()
        self._concepts: list[str] = packed["concepts"].tolist()
        self._meanings, self._weights = packed["meanings"], packed["weights"].astype(np.float32)
        self._held = frozenset(held)

    def meanings(self, number: int) -> tuple[list[str], list[float]]:
        """Concepts that word ``number`` may stand for, and how likely each is."""
        keys = [self._concepts[i] for i in self._meanings[number]]
        return keys, self._weights[number].tolist()

    def words_for(self, concept: str) -> tuple[list[str], list[float]]:
        """Words that may stand for a concept, and their weights; both empty if there are none."""
        return self._by_concept.get(concept, ([], []))

    @cached_property
    def _by_concept(self) -> dict[str, tuple[list[str], list[float]]]:
        found: dict[str, tuple[list[str], list[float]]] = defaultdict(lambda: ([], []))
        for number, word in enumerate(self.words):
            if held(word, self._held):
                continue
            for key, weight in zip(*self.meanings(number), strict=True):
                found[key][0].append(word)
                found[key][1].append(weight)
        return dict(found)


def held(word: str, words: Container[str]) -> bool:
    """Whether a word, or what it is the plural of, is among those held."""
    return word in words or word.removesuffix("s") in words
