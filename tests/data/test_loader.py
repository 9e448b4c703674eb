import logging
from collections.abc import Callable, Generator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unclip.data.folder import FolderSource
from unclip.data.loader import Loader
from unclip.data.source import BadSample, Composed, Sample, Source, Streamed, StreamSource
from unclip.data.transforms import RandomCropMultiple, SquareResize
from unclip.errors import DataError
from unclip.types import Batch

SQUARE = SquareResize(size=8, crop="random")
few = settings(max_examples=15, deadline=None)


def take(loader: Loader, count: int, start: int = 0) -> list[Batch]:
    batches = loader.batches(start)
    taken = list(islice(batches, count))
    batches.close()
    return taken


def keys(batches: Sequence[Batch]) -> list[str]:
    return [key for batch in batches for key in batch.keys]


def same(one: Batch, other: Batch) -> bool:
    return (
        one.keys == other.keys
        and one.captions == other.captions
        and torch.equal(one.images, other.images)
    )


class Holes:
    """Numbers of which some are bad."""

    def __init__(self, inner: Source, bad: set[int]) -> None:
        self.inner, self.bad = inner, bad

    def __len__(self) -> int:
        return len(self.inner)

    def sample(self, index: int) -> Sample:
        if index in self.bad:
            raise BadSample(str(index), "corrupt image", "in a test")
        return self.inner.sample(index)


class Scenes:
    """Composed by index, without end."""

    def __init__(self, size: int = 8) -> None:
        self.size = size

    def __len__(self) -> int:
        return 2**62

    def sample(self, index: int) -> Sample:
        made = self.batch([index])
        return Sample(made.keys[0], made.captions, made.images[0])

    def batch(self, indices: Sequence[int]) -> Composed:
        colours = np.array([[i % 251, i % 241, i % 239] for i in indices], np.uint8)
        images = np.broadcast_to(
            colours[:, None, None], (len(indices), self.size, self.size, 3)
        ).copy()
        images[:, 0, 0] = 255
        return Composed(images, tuple(f"scene {i}" for i in indices), tuple(map(str, indices)))


class Stream:
    """Numbers one after the other, some of them bad."""

    def __init__(self, inner: Source, bad: set[int]) -> None:
        self.inner, self.holes = inner, Holes(inner, bad)

    def stream(self, seed: int, start: int = 0) -> Generator[Streamed, None, None]:
        place = start
        while True:
            epoch, index = divmod(place, len(self.inner))
            try:
                sample: Sample | BadSample = self.holes.sample(index)
            except BadSample as bad:
                sample = bad
            yield Streamed(epoch, sample)
            place += 1


sizes = st.integers(1, 30)


@few
@given(sizes, st.integers(1, 7), st.integers(0, 10**9), st.integers(0, 50))
def test_resuming_equals_going_on(size: int, batch: int, seed: int, start: int) -> None:
    source = _numbers(size)
    whole = take(Loader(source, batch, SQUARE, seed), start + 3)
    resumed = take(Loader(source, batch, SQUARE, seed), 3, start)
    assert all(map(same, whole[start:], resumed))


@few
@given(sizes, st.sampled_from([(1, 4), (2, 3), (4, 2)]), st.integers(0, 10**9))
def test_processes_share_the_global_batch(size: int, cut: tuple[int, int], seed: int) -> None:
    processes, batch = cut
    source = Holes(_numbers(size), {3})
    if size > 3:
        source.bad.add(0)
    parts = [
        take(Loader(source, batch, SQUARE, seed, rank, processes), 5) for rank in range(processes)
    ]
    (whole,) = [take(Loader(source, batch * processes, SQUARE, seed), 5)]
    for step, one in enumerate(whole):
        joined = Batch(
            keys=tuple(keys([part[step] for part in parts])),
            images=torch.cat([part[step].images for part in parts]),
            captions=tuple(c for part in parts for c in part[step].captions),
        )
        assert same(one, joined)


@few
@given(sizes, st.integers(0, 10**9))
def test_an_epoch_is_every_sample_once(size: int, seed: int) -> None:
    source = _numbers(size)
    first, second = take(Loader(source, size, None, seed), 2)
    expected = sorted(map(str, range(size)))
    assert sorted(first.keys) == sorted(second.keys) == expected
    assert first.images is None


def test_seed_changes_everything_and_nothing_else_does(numbers: type) -> None:
    one, again, other = (take(Loader(numbers(50), 10, SQUARE, s), 3) for s in (1, 1, 2))
    assert all(map(same, one, again))
    assert keys(one) != keys(other)


def test_only_what_is_asked_for_is_read(numbers: type) -> None:
    read = []

    class Watched(numbers):
        def sample(self, index: int) -> Sample:
            read.append(index)
            return super().sample(index)

    batches = Loader(Watched(1000), 4, None, 0).batches(100_000)
    next(batches)
    assert len(read) == 4


def test_pictures_and_captions_belong_together(numbers: type) -> None:
    for batch in take(Loader(numbers(200), 16, SQUARE, 5), 4):
        shown = ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()
        assert [str(i) for i in shown] == list(batch.keys)
        assert [caption.split()[0] for caption in batch.captions] == list(batch.keys)
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (16, 3, 8, 8)


def test_captions_take_turns(numbers: type) -> None:
    batches = take(Loader(numbers(5, captions=3), 5, None, 0), 6)
    said: dict[str, list[str]] = {}
    for batch in batches:
        for key, caption in zip(batch.keys, batch.captions, strict=True):
            said.setdefault(key, []).append(caption)
    for captions in said.values():
        assert len(set(captions[:3])) == 3
        assert captions[:3] == captions[3:]
    assert len({captions[0].split()[-1] for captions in said.values()}) > 1


@few
@given(st.integers(2, 25), st.data())
def test_bad_samples_are_replaced_alike(size: int, data: st.DataObject) -> None:
    bad = set(data.draw(st.lists(st.integers(0, size - 1), max_size=size - 1)))
    loader = Loader(Holes(_numbers(size), bad), 4, None, 3)
    batches = take(loader, 2 * size)
    assert not set(map(str, bad)) & set(keys(batches))
    good = keys(take(Loader(_numbers(size), 4, None, 3), 2 * size))
    for key, expected in zip(keys(batches), good, strict=True):
        assert key == expected or int(expected) in bad
    assert loader.report.counts == ({"corrupt image": len(bad)} if bad else {})
    assert set(loader.report.first("corrupt image")) <= set(map(str, bad))


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_samples_is_an_error(numbers: type, workers: int) -> None:
    loader = Loader(Holes(numbers(3), {0, 1, 2}), 2, SQUARE, 0, workers=workers)
    with pytest.raises(DataError, match=r"no usable sample.*corrupt image \(in a test\)"):
        next(loader.batches())
    assert loader.report.counts == {"corrupt image": 3}


def test_the_search_for_a_good_sample_ends(numbers: type) -> None:
    class AllBad(numbers):
        def sample(self, index: int) -> Sample:
            raise BadSample(str(index), "no caption")

    with pytest.raises(DataError, match="no usable sample among 1000 tried"):
        next(Loader(AllBad(10**9), 1, None, 0).batches())


def test_empty() -> None:
    with pytest.raises(DataError, match="empty"):
        Loader(_numbers(0), 1, None, 0)


def test_the_log_names_skips_without_flooding(
    numbers: type, caplog: pytest.LogCaptureFixture
) -> None:
    loader = Loader(Holes(numbers(200), set(range(150))), 50, None, 0)
    with caplog.at_level(logging.WARNING):
        take(loader, 12)
    assert loader.report.skipped == 150
    assert "corrupt image (in a test)" in caplog.messages[0]
    assert len(caplog.messages) == 11
    assert "skipped 100 samples: corrupt image" in caplog.messages[-1]
    assert str(loader.report).startswith("skipped 150 × corrupt image (")


@pytest.mark.parametrize(("start_method", "workers"), [("fork", 2), ("spawn", 1)])
def test_workers_change_nothing(folder: Callable, start_method: str, workers: int) -> None:
    source = FolderSource(folder(12))
    (source.root / "odd" / "003.txt").write_text("")
    here = Loader(source, 3, SQUARE, 9)
    there = Loader(source, 3, SQUARE, 9, workers=workers, start_method=start_method)
    for start in (0, 5) if start_method == "fork" else (0,):
        assert all(map(same, take(here, 5, start), take(there, 5, start)))
    assert here.report.counts == there.report.counts == {"empty caption": 1}


def test_composed_batches() -> None:
    whole = take(Loader(Scenes(), 8, SquareResize(size=8), 4), 3)
    parts = [take(Loader(Scenes(), 4, SquareResize(size=8), 4, rank, 2), 3) for rank in (0, 1)]
    for step, one in enumerate(whole):
        assert one.keys == parts[0][step].keys + parts[1][step].keys
        assert torch.equal(one.images[4:], parts[1][step].images)
        assert (one.images[:, :, 0, 0] == 1).all()
        expected = torch.tensor([int(key) % 251 for key in one.keys]) / 127.5 - 1
        assert torch.allclose(one.images[:, 0, 4, 4], expected)
    assert max(int(key) for key in keys(whole)) > 2**50


def test_composed_batches_are_transformed_if_need_be() -> None:
    crop = RandomCropMultiple(size=8, multiple=4)
    (batch,) = take(Loader(Scenes(size=16), 32, crop, 0), 1)
    assert batch.images.shape == (32, 3, 8, 8)
    corners = (batch.images[:, :, 0, 0] == 1).all(1)  # the white pixel is at the scene's corner
    assert 0 < corners.sum() < 16
    assert torch.equal(batch.images, take(Loader(Scenes(16), 32, crop, 0), 1)[0].images)
    (as_it_is,) = take(Loader(Scenes(size=16), 2, None, 0), 1)
    assert as_it_is.images.shape == (2, 3, 16, 16)


@few
@given(st.integers(2, 12), st.integers(1, 4), st.integers(0, 6), st.data())
def test_streams(size: int, batch: int, start: int, data: st.DataObject) -> None:
    bad = set(data.draw(st.lists(st.integers(0, size - 1), max_size=size - 1)))
    source = Stream(_numbers(size), bad)
    assert isinstance(source, StreamSource)
    loader = Loader(source, 2 * batch, SQUARE, 1)
    whole = take(loader, start + 3)
    assert all(map(same, whole[start:], take(Loader(source, 2 * batch, SQUARE, 1), 3, start)))
    halves = [take(Loader(source, batch, SQUARE, 1, rank, 2), start + 3) for rank in (0, 1)]
    assert keys(whole) == [key for pair in zip(*halves, strict=True) for key in keys(pair)]
    for place, key in enumerate(keys(whole)):
        assert int(key) not in bad
        assert int(key) == place % size or place % size in bad


def test_a_stream_is_read_by_one_worker(numbers: type) -> None:
    source = Stream(numbers(9), {4})
    here = take(Loader(source, 4, SQUARE, 1), 4, 2)
    there = take(Loader(source, 4, SQUARE, 1, workers=3), 4, 2)
    assert all(map(same, here, there))


def test_a_stream_of_bad_samples(numbers: type) -> None:
    with pytest.raises(DataError, match="no usable sample among 1000 in a row: 0: corrupt"):
        next(Loader(Stream(numbers(2), {0, 1}), 4, SQUARE, 1).batches())


def test_bad_images_are_found_when_decoded(folder: Callable, tmp_path: Path) -> None:
    source = FolderSource(folder(3))
    (source.root / "odd" / "001.png").write_bytes(b"")
    loader = Loader(source, 3, SQUARE, 0)
    assert set(keys(take(loader, 2))) == {"even/000.png", "even/002.png"}
    assert loader.report.first("corrupt image") == ("odd/001.png",)
    # Without images nobody notices, and nobody need.
    assert len(set(keys(take(Loader(source, 3, None, 0), 1)))) == 3


def _numbers(size: int) -> Source:
    return _Numbers(size)


class _Numbers:
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int) -> Sample:
        pixels = np.array(Image.linear_gradient("L").resize((12, 10)).convert("RGB"))
        pixels[..., 0] = index
        return Sample(str(index), (f"number {index}", f"no. {index}"), pixels)
