from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from unclip import images
from unclip.data.embeddings import EmbeddedSource, compute_embeddings
from unclip.data.folder import FolderSource
from unclip.data.loader import Loader
from unclip.data.source import BadSample, Sample, Source
from unclip.data.transforms import SquareResize
from unclip.errors import DataError
from unclip.identity import ClipIdentity, identify
from unclip.types import finish

SQUARE = SquareResize(size=8)


class MeanColour:
    """An encoder whose answer is known: the mean colour, weighted."""

    def __init__(self, weight: float = 1.0) -> None:
        self.network = nn.Linear(3, 3, bias=False)
        self.network.weight.data = weight * torch.eye(3)
        self.seen = 0

    def identity(self) -> ClipIdentity:
        return identify([("network.image.weight", self.network.weight)])

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        self.seen += len(images)
        return self.network(images.mean((2, 3)).to(self.network.weight.dtype))


def expected(sample: Sample) -> np.ndarray:
    return images.to_tensor(sample.image()).mean((1, 2)).numpy()


@pytest.fixture
def source(folder: Callable) -> Source:
    return FolderSource(folder(11))


def test_embeddings_without_decoding(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = {(one := source.sample(i)).key: expected(one) for i in range(11)}
    steps = compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z", batch=2, rows=4)
    assert list(steps) == [(4, 11), (8, 11), (11, 11)]
    embedded = EmbeddedSource(source, tmp_path / "z", MeanColour(), SQUARE)

    def never(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("unclip.data.source.decode", never)
    for workers in (0, 1):
        batch = next(Loader(embedded, 11, None, 0, workers=workers).batches())
        assert batch.images is None
        assert batch.captions is not None
        assert batch.image_embedding.dtype == torch.float32
        for key, embedding in zip(batch.keys, batch.image_embedding.numpy(), strict=True):
            assert np.abs(embedding - truth[key]).max() < 1e-3  # float16
    assert isinstance(embedded, Source)


def test_float32_is_exact(source: Source, tmp_path: Path) -> None:
    embedded = finish(
        compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z", dtype="float32")
    )
    for i in range(11):
        want = SQUARE(source.sample(i).image(), 0, "").mean((1, 2)).numpy()
        assert np.abs(embedded.sample(i).embedding - want).max() < 1e-6


def test_interrupted_runs_continue(source: Source, tmp_path: Path) -> None:
    first = compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z", rows=3)
    list(islice(first, 2))
    first.close()
    (tmp_path / "z" / "000002.part").write_bytes(b"half a file")
    with pytest.raises(DataError, match="2 of 4 files are missing"):
        EmbeddedSource(source, tmp_path / "z", MeanColour(), SQUARE)
    clip = MeanColour()
    embedded = finish(compute_embeddings(source, clip, SQUARE, tmp_path / "z", rows=3))
    assert clip.seen == 5
    assert len(list((tmp_path / "z").iterdir())) == 5
    for i in range(11):
        assert np.abs(embedded.sample(i).embedding - expected(source.sample(i))).max() < 1e-3


def test_stale_embeddings_name_both_sides(source: Source, tmp_path: Path) -> None:
    folder = tmp_path / "z"
    finish(compute_embeddings(source, MeanColour(), SQUARE, folder))
    old, new = MeanColour().identity().image, (other := MeanColour(-0.5)).identity().image
    assert old != new
    with pytest.raises(DataError, match=rf"of another CLIP \(image tower {old}, {new}\)"):
        EmbeddedSource(source, folder, other, SQUARE)
    with pytest.raises(DataError, match=rf"of another CLIP \(image tower {old}, {new}\)"):
        finish(compute_embeddings(source, other, SQUARE, folder))
    with pytest.raises(DataError, match=r'"size":8.*not of.*"size":9'):
        EmbeddedSource(source, folder, MeanColour(), SquareResize(size=9))
    with pytest.raises(DataError, match=r"float16.*asked for.*float32"):
        finish(compute_embeddings(source, MeanColour(), SQUARE, folder, dtype="float32"))


def test_a_dataset_that_changed(source: FolderSource, tmp_path: Path) -> None:
    folder = tmp_path / "z"
    finish(compute_embeddings(source, MeanColour(), SQUARE, folder))
    for suffix in (".png", ".txt"):
        (source.root / "even" / f"000{suffix}").rename(source.root / "odd" / f"999{suffix}")
    embedded = EmbeddedSource(FolderSource(source.root), folder, MeanColour(), SQUARE)
    with pytest.raises(DataError, match=r"sample \d+ was \w+/\d+\.png and is \w+/\d+\.png now"):
        next(Loader(embedded, 11, None, 0).batches())
    (source.root / "odd" / "999.png").unlink()
    with pytest.raises(DataError, match=r"holds 11 embeddings .* asked for are 10"):
        EmbeddedSource(FolderSource(source.root), folder, MeanColour(), SQUARE)


def test_unusable_images_have_no_embedding(source: FolderSource, tmp_path: Path) -> None:
    (source.root / "odd" / "001.png").write_bytes(b"broken")
    (source.root / "odd" / "003.txt").unlink()
    embedded = finish(compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z", batch=1))
    with pytest.raises(BadSample, match=r"odd/001\.png: no embedding"):
        embedded.sample(6)
    loader = Loader(embedded, 11, None, 0)
    batch = next(loader.batches())
    assert batch.image_embedding is not None
    assert loader.report.counts == {"no embedding": 1, "no caption": 1}


def test_nothing_usable(source: FolderSource, tmp_path: Path) -> None:
    for i in range(len(source)):
        source.sample(i).picture.write_bytes(b"broken")
    with pytest.raises(DataError, match="no usable sample among 11; skipped 11 × corrupt image"):
        finish(compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z"))


def test_missing_and_damaged_folders(source: Source, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no embeddings"):
        EmbeddedSource(source, tmp_path / "z", MeanColour(), SQUARE)
    finish(compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z"))
    (tmp_path / "z" / "000000.safetensors").write_bytes(b"damaged")
    embedded = EmbeddedSource(source, tmp_path / "z", MeanColour(), SQUARE)
    with pytest.raises(DataError, match=r"000000\.safetensors: damaged"):
        embedded.sample(0)
    with pytest.raises(DataError, match=r"000000\.safetensors: damaged"):
        finish(compute_embeddings(source, MeanColour(), SQUARE, tmp_path / "z"))
    (tmp_path / "z" / "embeddings.json").write_text("{}")
    with pytest.raises(DataError, match=r"embeddings\.json: cannot be read"):
        EmbeddedSource(source, tmp_path / "z", MeanColour(), SQUARE)
