"""A stage that is in memory when it is needed. It knows neither files nor what a stage does."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from torch import Tensor

from unclip.types import Sampling, Step

S = TypeVar("S")


class Slot(Generic[S]):
    """A stage that is loaded when first used and can be let go of to free its memory.

    Args:
        load: gives the stage.
        keep: whether it stays once it is loaded.
    """

    def __init__(self, load: Callable[[], S], *, keep: bool = True) -> None:
        self._load = load
        self.keep = keep
        self._stage: S | None = None
        self._users = 0

    @classmethod
    def holding(cls, stage: S) -> "Slot[S]":
        """A slot around a stage that is in memory already."""
        return cls(lambda: stage)

    @property
    def loaded(self) -> bool:
        """Whether the stage is in memory now."""
        return self._stage is not None

    @contextmanager
    def use(self) -> Iterator[S]:
        """Lend the stage, loading it if need be.

        Unless it is kept, it is freed when the last is done to whom it was lent.
        """
        if self._stage is None:
            self._stage = self._load()
        self._users += 1
        try:
            yield self._stage
        finally:
            self._users -= 1
            if not self.keep and not self._users:
                self._stage = None

    def sample(self, start: Callable[[S], Sampling]) -> Sampling:
        """Run the sampler that ``start`` makes of the stage.

        Nothing else refers to the stage meanwhile: before the next one loads, this one is gone.
        """
        with self.use() as stage:
            return (yield from start(stage))

    def sample_all(self, samplings: Iterable[Sampling]) -> Generator[Step, None, list[Tensor]]:
        """Run samplers of this slot one after another, for which the stage is loaded once."""
        samples = []
        with self.use():
            for sampling in samplings:
                samples.append((yield from sampling))
        return samples
