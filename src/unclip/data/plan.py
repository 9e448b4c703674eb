"""What batch k is made of, in whichever process it is prepared. Knows nothing of workers."""

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from unclip.data.order import Order
from unclip.data.report import describe
from unclip.data.source import (
    BadSample,
    BatchSource,
    Composed,
    Sample,
    Source,
    Streamed,
    StreamSource,
)
from unclip.data.transforms import Transform
from unclip.errors import DataError
from unclip.randomness import derive_seed
from unclip.types import Batch

MAX_BAD_RUN = 1000
"""So many unusable samples one after the other end a run."""


class Prepared(NamedTuple):
    """A batch with what was left out on the way, or the error that ends the run."""

    result: Batch | DataError
    skipped: list[BadSample]


@dataclass(frozen=True)
class _Ready:
    """One sample of a batch, decoded and transformed."""

    key: str
    caption: str | None
    image: Float[Tensor, "3 h w"] | None
    embedding: Float[np.ndarray, " d"] | None


class Plan:
    """Everything batch k is made of; travels to the workers."""

    def __init__(
        self,
        source: Source | StreamSource,
        batch_size: int,
        transform: Transform | None,
        seed: int,
        rank: int,
        processes: int,
        shuffle: bool,
    ) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self.batch_size, self.offset = batch_size, rank * batch_size
        self.global_batch = batch_size * processes
        if isinstance(source, Source):
            self.order = Order(len(source), derive_seed(seed, "order"), shuffle)

    def prepare(self, k: int) -> Prepared:
        """Make batch ``k`` of a source that is read by index."""
        first = k * self.global_batch + self.offset
        places = np.arange(first, first + self.batch_size)
        indices = self.order.indices(places)
        if isinstance(self.source, BatchSource):
            return Prepared(self._composed(self.source.batch(indices.tolist()), first), [])
        skipped: list[BadSample] = []
        try:
            # Read in the source's order: what lies together is then read once. Which samples a
            # batch has, and where, does not depend on it.
            ready = {
                int(places[i]): self._usable(int(places[i]), int(indices[i]), skipped)
                for i in np.argsort(indices, kind="stable")
            }
        except DataError as error:
            return Prepared(error, skipped)
        return Prepared(_join([ready[place] for place in sorted(ready)]), skipped)

    def streamed(self, start: int) -> Generator[Prepared, None, None]:
        """Make the batches from ``start`` on of a stream, reading all of it and decoding our part.

        A bad sample's place is taken by the next good one, which has its own place as well:
        who stands where then does not depend on which samples turn out bad on which process.
        """
        assert isinstance(self.source, StreamSource)
        place = start * self.global_batch
        ahead: deque[Streamed] = deque()
        skipped: list[BadSample] = []
        try:
            with closing(self.source.stream(derive_seed(self.seed, "order"), place)) as items:
                while True:
                    skipped = []
                    while len(ahead) < self.global_batch:
                        ahead.append(next(items))
                    ready = [
                        self._next_usable(self.offset + i, place, ahead, items, skipped)
                        for i in range(self.batch_size)
                    ]
                    yield Prepared(_join(ready), skipped)
                    for _ in range(self.global_batch):
                        ahead.popleft()
                    place += self.global_batch
        except DataError as error:
            yield Prepared(error, skipped)

    def _usable(self, place: int, index: int, skipped: list[BadSample]) -> _Ready:
        """Read the sample at ``index``, or the first good substitute."""
        assert isinstance(self.source, Source)
        run: list[BadSample] = []
        for attempt in range(1, min(len(self.source), MAX_BAD_RUN) + 2):
            try:
                ready = self._ready(self.source.sample(index), index, place)
            except BadSample as bad:
                run.append(bad)
                skipped.append(bad)
                index = self.order.substitute(place, attempt)
            else:
                return ready
        raise DataError(f"no usable sample among {len(run) - 1} tried: {describe(run)}")

    def _next_usable(
        self,
        position: int,
        place: int,
        ahead: deque[Streamed],
        items: Generator[Streamed, None, None],
        skipped: list[BadSample],
    ) -> _Ready:
        run: list[BadSample] = []
        for at in range(position, position + MAX_BAD_RUN):
            while len(ahead) <= at:
                ahead.append(next(items))
            epoch, sample = ahead[at]
            try:
                if isinstance(sample, BadSample):
                    raise sample
                return self._ready(sample, derive_seed(sample.key), place + position, epoch)
            except BadSample as bad:
                run.append(bad)
                skipped.append(bad)
        raise DataError(f"no usable sample among {len(run)} in a row: {describe(run)}")

    def _ready(self, sample: Sample, number: int, place: int, epoch: int | None = None) -> _Ready:
        if epoch is None:
            epoch = self.order.epoch(place)
        caption = None
        if sample.captions:
            turn = derive_seed(self.seed, "caption", number) + epoch
            caption = sample.captions[turn % len(sample.captions)]
        image = None
        if self.transform is not None:
            image = self.transform(sample.image(), self._transform_seed(place), sample.key)
        return _Ready(sample.key, caption, image, sample.embedding)

    def _composed(self, made: Composed, first: int) -> Batch:
        pixels = made.images
        if self.transform is None or self.transform.keeps(*pixels.shape[1:3]):
            levels = rearrange(torch.as_tensor(pixels), "b h w c -> b c h w").float()
            images = levels.div_(127.5).sub_(1)
        else:
            several = zip(np.asarray(torch.as_tensor(pixels).cpu()), made.keys, strict=True)
            images = torch.stack(
                [
                    self.transform(one, self._transform_seed(first + i), key)
                    for i, (one, key) in enumerate(several)
                ]
            )
        return Batch(made.keys, images, made.captions)

    def _transform_seed(self, place: int) -> int:
        return derive_seed(self.seed, "transform", place)


def _join(ready: Sequence[_Ready]) -> Batch:
    """Collate; a field that any of the samples lacks is None."""
    captions = tuple(one.caption for one in ready if one.caption is not None)
    pictures = [one.image for one in ready if one.image is not None]
    embeddings = [one.embedding for one in ready if one.embedding is not None]
    return Batch(
        keys=tuple(one.key for one in ready),
        images=torch.stack(pictures) if len(pictures) == len(ready) else None,
        captions=captions if len(captions) == len(ready) else None,
        image_embedding=torch.from_numpy(np.stack(embeddings)).float()
        if len(embeddings) == len(ready)
        else None,
    )
