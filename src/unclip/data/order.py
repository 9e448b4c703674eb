"""The order of a dataset: every epoch a permutation that is computed, never stored."""

from functools import lru_cache

import numpy as np

from unclip.randomness import derive_seed

_ROUNDS = 8
_SMALLEST = 6  # bits; a narrower network mixes badly, and walking out of 64 is cheap


class Permutation:
    """A pseudo-random permutation of ``range(size)``, for sizes up to 2**62.

    A Feistel network permutes the next power of four; indices that fall outside are sent
    through it again until they fall inside (cycle walking). Any stretch of it is had without
    the rest, which is what resuming needs.
    """

    def __init__(self, size: int, seed: int) -> None:
        if not 0 < size <= 2**62:
            raise ValueError(f"size {size} is not in 1 … 2**62")
        self.size = size
        bits = max(_SMALLEST, (size - 1).bit_length())
        self._half = np.uint64(-(-bits // 2))
        self._low = np.uint64((1 << int(self._half)) - 1)
        self._keys = [np.uint64(derive_seed(seed, "round", i)) for i in range(_ROUNDS)]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the indices at ``positions``, an integer array with values in [0, size)."""
        indices = self._encrypt(positions.astype(np.uint64))
        while (outside := indices >= self.size).any():
            indices[outside] = self._encrypt(indices[outside])
        return indices.astype(np.int64)

    def _encrypt(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._low
        for key in self._keys:
            left, right = right, left ^ (_mix(right ^ key) & self._low)
        return left << self._half | right


def _mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014)."""
    values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return values ^ values >> np.uint64(31)


class Order:
    """Which sample stands at which place of an endless sequence of epochs.

    Args:
        size: samples in the dataset.
        seed: of the shuffling.
        shuffle: False keeps the dataset's own order in every epoch.
    """

    def __init__(self, size: int, seed: int, shuffle: bool = True) -> None:
        self.size, self.seed, self.shuffle = size, seed, shuffle

    def epoch(self, place: int) -> int:
        """Return the epoch, from 0, that ``place`` belongs to."""
        return place // self.size

    def indices(self, places: np.ndarray) -> np.ndarray:
        """Return the index of the sample at each of ``places``, an integer array."""
        if not self.shuffle:
            return places % self.size
        epochs, positions = np.divmod(places, self.size)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            indices[here] = self._permutation("epoch", int(epoch))(positions[here])
        return indices

    def substitute(self, place: int, attempt: int) -> int:
        """Return the index to try for the ``attempt``-th time (from 1) if a sample is bad.

        The attempts 1 … size at one place try every sample. They jump about the dataset, for
        bad samples tend to lie together.
        """
        position = np.array([(place + attempt - 1) % self.size])
        return int(self._permutation("substitute", self.epoch(place))(position)[0])

    def _permutation(self, purpose: str, epoch: int) -> Permutation:
        return _permutation(self.size, derive_seed(self.seed, purpose, epoch))


_permutation = lru_cache(maxsize=16)(Permutation)
