"""Scenes in rows that differ only in what they show: what CLIP learns to tell things apart by."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from atlas import Row
from scenes import Scene, Scenes, by_cluster

from unclip.randomness import derive_seed

TOGETHER = 32
"""Scenes in a row."""
ENOUGH = 200
"""Drawings a set must have for rows of its own."""


class Alike(Scenes):
    """Scenes, of which each row shares kind, language, colours, layout and set of drawings.

    In a batch of scenes decided one by one, colours and style tell nearly all captions apart.
    Here the rest of a row can be told apart by nothing but what is drawn.

    The arguments are those of `Scenes`.
    """

    def __init__(
        self,
        folder: Path | str = "cache/emoji",
        size: int = 64,
        seed: int = 0,
        everything: bool = False,
    ) -> None:
        super().__init__(folder, size, seed, everything)
        self._sets = {pool: _by_set(clusters) for pool, clusters in self._pools.items()}

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        """Decide what the scenes at ``indices`` show; the first of a row how all of it look."""
        firsts = (indices[place - place % TOGETHER] for place in range(len(indices)))
        return [
            self._scene(
                Random(derive_seed(self.seed, "look", first)),
                Random(derive_seed(self.seed, "scene", index)),
            )
            for first, index in zip(firsts, indices, strict=True)
        ]

    def _pick(self, kind: str, language: str, look: Random, rng: Random) -> Row:
        chosen = look.random()
        sets = self._sets[kind, language]
        if not sets:
            return super()._pick(kind, language, look, rng)
        return rng.choice(rng.choice(sets[int(chosen * len(sets))]))


def _by_set(clusters: list[list[Row]]) -> list[list[list[Row]]]:
    """Clusters of each set of drawings that has enough of them."""
    sets: dict[str, list[Row]] = defaultdict(list)
    for rows in clusters:
        for row in rows:
            sets[row.art.key].append(row)
    return [by_cluster(rows) for rows in sets.values() if len(rows) >= ENOUGH]
