"""Endless, reproducible batches from a source: batch k depends on the seed and k alone."""

import itertools
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Any, Literal

from torch.utils.data import DataLoader, Dataset, IterableDataset

from unclip.data.plan import Plan, Prepared
from unclip.data.report import Report
from unclip.data.source import Source, StreamSource
from unclip.data.transforms import Transform
from unclip.errors import DataError
from unclip.types import Batch


class Loader:
    """Batches of a source, endlessly, each process taking its slice of the global batch.

    Batch k of all processes together holds the places k·B … (k+1)·B of one endless sequence of
    shuffled epochs, so two processes of batch 4 see what one of batch 8 sees, and every epoch
    shows every sample once. A bad sample's place is taken by another sample, the same one in
    every run. Of several captions, each has its turn, epoch after epoch.

    Args:
        source: samples by index, composed batches, or a stream.
        batch_size: of this process.
        transform: makes the images equally large. None: images are not even decoded and
            `Batch.images` is None (training from cached embeddings), except for a
            `BatchSource`, whose images then come as they are.
        seed: of the order and of every random choice of the transform.
        rank: which process this is.
        processes: how many there are.
        workers: processes that prepare batches ahead; 0 prepares them here, when asked for. A
            stream is read by one worker at most, so that it is fetched once.
        shuffle: False keeps the source's order (streams shuffle themselves).
        start_method: how workers are started; None leaves it to Python.
    """

    def __init__(
        self,
        source: Source | StreamSource,
        batch_size: int,
        transform: Transform | None,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        workers: int = 0,
        shuffle: bool = True,
        start_method: Literal["fork", "spawn", "forkserver"] | None = None,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < processes:
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {processes}")
        if isinstance(source, Source) and len(source) == 0:
            raise DataError("the dataset is empty")
        self.report = Report()
        self._plan = Plan(source, batch_size, transform, seed, rank, processes, shuffle)
        self._workers = min(workers, 1) if isinstance(source, StreamSource) else workers
        self._start_method = start_method

    def batches(self, start: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches ``start``, ``start + 1``, … without end.

        Nothing of the earlier ones is read, unless the source is a stream.

        Raises:
            DataError: there were nothing but bad samples; the first culprits are named.
        """
        with closing(self._prepared(start)) as prepared:
            for item in prepared:
                self.report.add(item.skipped)
                if isinstance(item.result, DataError):
                    raise item.result
                yield item.result

    def _prepared(self, start: int) -> Generator[Prepared, None, None]:
        plan = self._plan
        streamed = isinstance(plan.source, StreamSource)
        if not self._workers:
            here = plan.streamed(start) if streamed else map(plan.prepare, itertools.count(start))
            yield from here
            return
        ahead = partial(
            DataLoader,
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=self._workers,
            multiprocessing_context=self._start_method,
        )
        if streamed:
            yield from ahead(_StreamAhead(plan, start))
        else:
            yield from ahead(_Ahead(plan), sampler=_From(start))


def _as_it_is(item: Any) -> Any:
    return item


class _From:
    """Counts up from a number; a sampler that pickles."""

    def __init__(self, start: int) -> None:
        self._start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self._start)


class _Ahead(Dataset):
    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def __getitem__(self, k: int) -> Prepared:
        return self._plan.prepare(k)


class _StreamAhead(IterableDataset):
    def __init__(self, plan: Plan, start: int) -> None:
        self._plan, self._start = plan, start

    def __iter__(self) -> Iterator[Prepared]:
        return self._plan.streamed(self._start)
