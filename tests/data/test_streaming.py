"""Shards over HTTP, from a server on this machine, against the same shards read locally."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import pytest
import torch
from pictures import encoded, picture

from unclip.data.loader import Loader
from unclip.data.open_data import open_data
from unclip.data.shards import StreamedShards
from unclip.data.source import BadSample, Sample, StreamSource
from unclip.data.transforms import SquareResize
from unclip.errors import DataError
from unclip.types import Batch


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    servers = []

    def start(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def content(sample: Sample | BadSample) -> tuple:
    if isinstance(sample, BadSample):
        return sample.key.rpartition("/")[2], sample.reason
    return sample.key, sample.captions, sample.picture


def local(source: object) -> list[tuple]:
    found = []
    for i in range(len(source)):
        try:
            found.append(content(source.sample(i)))
        except BadSample as bad:
            found.append(content(bad))
    return sorted(found, key=str)


def epochs(source: StreamSource, length: int, count: int, seed: int = 0) -> list[list[tuple]]:
    stream = source.stream(seed)
    items = [list(islice(stream, length)) for _ in range(count)]
    stream.close()
    for epoch, part in enumerate(items):
        assert {item.epoch for item in part} == {epoch}
    return [[content(item.sample) for item in part] for part in items]


def test_streaming_is_local_reading_in_another_order(shards: Callable, serve: Callable) -> None:
    folder = shards([5, 4, 3])[0].parent
    streamed = open_data(serve(folder) + "/{00000..00002}.tar")
    assert isinstance(streamed, StreamedShards)
    assert isinstance(streamed, StreamSource)
    first, second = epochs(streamed, 12, 2)
    assert sorted(first, key=str) == sorted(second, key=str) == local(open_data(folder))
    assert first != second
    assert first == epochs(streamed, 12, 1)[0]
    assert first != epochs(streamed, 12, 1, seed=1)[0]


def test_the_buffer_bounds_how_far_samples_move(shards: Callable, serve: Callable) -> None:
    folder = shards([12])[0].parent
    url = serve(folder) + "/00000.tar"
    in_order = [key for key, *_ in epochs(StreamedShards([url], buffer=1), 12, 1)[0]]
    assert in_order == sorted(in_order)
    shuffled = [key for key, *_ in epochs(StreamedShards([url], buffer=4), 12, 1)[0]]
    assert shuffled != in_order
    assert all(in_order.index(key) - place < 4 for place, key in enumerate(shuffled))


def test_resuming_a_stream(shards: Callable, serve: Callable) -> None:
    folder = shards([3, 4])[0].parent
    url = serve(folder) + "/{00000..00001}.tar"

    def run(start: int, rank: int = 0, processes: int = 1) -> list[Batch]:
        transform = SquareResize(size=8, crop="random")
        loader = Loader(open_data(url), 4 // processes, transform, 3, rank, processes)
        with torch.no_grad():
            return list(islice(loader.batches(start), 3))

    whole, resumed = run(0), run(2)
    assert whole[2].keys == resumed[0].keys
    assert whole[2].captions == resumed[0].captions
    assert torch.equal(whole[2].images, resumed[0].images)
    parts = [run(0, rank, 2) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        assert batch.keys == parts[0][step].keys + parts[1][step].keys


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_truncated_shards_stream_as_they_read(
    shards: Callable, serve: Callable, share: float
) -> None:
    paths = shards([6, 2])
    data = paths[0].read_bytes()
    paths[0].write_bytes(data[: int(data.rfind(b"number") * share)])
    expected = local(open_data(paths[0].parent))
    streamed = open_data(serve(paths[0].parent) + "/{00000..00001}.tar")
    (epoch,) = epochs(streamed, len(expected), 1)
    assert sorted(epoch, key=str) == expected
    assert ("00000.tar", "truncated shard") in epoch


def test_odd_members_stream_as_they_read(pack: Callable, serve: Callable) -> None:
    image = encoded(picture(1))
    members = [
        ("__meta__", b"?"),
        ("__own__.jpg", image),
        ("no-suffix", b"?"),
        ("a.png", image),
        ("a.txt", b"first"),
        ("a.txt", b"second"),
        ("b.PNG", image),
        ("b.TXT", b"shouted"),
        ("c.seg.png", image),
        ("c.txt", b"no image of its own"),
    ]
    path = pack("0.tar", members)
    expected = local(open_data(path))
    assert ("0.tar/a", ("first",), image) in expected
    assert ("0.tar/b", ("shouted",), image) in expected
    (epoch,) = epochs(open_data(serve(path.parent) + "/0.tar"), len(expected), 1)
    assert sorted(epoch, key=str) == expected


def test_missing_shards_are_counted(shards: Callable, serve: Callable) -> None:
    url = serve(shards([4])[0].parent)
    loader = Loader(open_data(url + "/{00000..00002}.tar"), 4, SquareResize(size=8), 0)
    list(islice(loader.batches(), 3))
    assert loader.report.counts == {"unreadable shard": 2}
    assert set(loader.report.first("unreadable shard")) == {
        f"{url}/00001.tar",
        f"{url}/00002.tar",
    }


def test_only_missing_shards_are_an_error(tmp_path: Path, serve: Callable) -> None:
    loader = Loader(open_data(serve(tmp_path) + "/{0..1}.tar"), 4, SquareResize(size=8), 0)
    with pytest.raises(DataError, match=r"no usable sample in 2 shards: .*unreadable shard"):
        next(loader.batches())


def test_curl_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(DataError, match="needs the program curl"):
        open_data("https://localhost/0.tar")
