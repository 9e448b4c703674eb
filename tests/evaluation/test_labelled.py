from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.checkpoint import load_stage
from unclip.errors import DataError
from unclip.evaluation.labelled import Labelled, embed_labelled, labels_of, split
from unclip.evaluation.neighbours import index_folder
from unclip.types import finish


def rows(*counts: int) -> Labelled:
    numbers = [label for label, count in enumerate(counts) for _ in range(count)]
    names = tuple(f"{label}/{i}" for i, label in enumerate(numbers))
    return Labelled(torch.arange(len(numbers)).float()[:, None], torch.tensor(numbers), names)


@pytest.mark.parametrize(("parts", "sizes"), [(2, [12, 3]), (3, [9, 3, 3])])
def test_every_label_is_split_alike_and_nothing_twice(parts: int, sizes: list[int]) -> None:
    pieces = split(rows(15, 15), parts)
    assert [len(piece.labels) for piece in pieces] == [2 * size for size in sizes]
    assert all(piece.labels.sum() * 2 == len(piece.labels) for piece in pieces)
    every = torch.cat([piece.features[:, 0] for piece in pieces])
    assert sorted(every.tolist()) == list(range(30))
    again = split(rows(15, 15), parts)
    assert all(torch.equal(a.features, b.features) for a, b in zip(pieces, again, strict=True))


def test_a_label_needs_an_image_in_every_part() -> None:
    assert [len(p.labels) for p in split(rows(3, 3), 3)] == [2, 2, 2]
    with pytest.raises(DataError, match="label 1 has 2 images"):
        split(rows(3, 2), 3)


def test_features_follow_their_labels(tiny_model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, count in (("a", 34), ("b", 2)):
        (tmp_path / label).mkdir()
        for i in range(count):
            noise = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / label / f"{i:02}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"x")
    clip = load_stage(tiny_model / "clip")
    found = finish(embed_labelled(clip, tmp_path, labels_of(tmp_path)))
    assert found.labels.tolist() == [0] * 34 + [1] * 2
    assert found.names[34:] == ("b/00.png", "b/01.png")
    alone = finish(embed_labelled(clip, tmp_path, ["b"]))
    assert torch.allclose(found.features[34:], alone.features, atol=1e-5)


def test_the_index_embeds_only_what_is_new(tiny_model: Path, tmp_path: Path) -> None:
    folder, cache = tmp_path / "images", tmp_path / "cache"
    (folder / "deep").mkdir(parents=True)
    for name, colour in (("a.png", "red"), ("deep/a.png", "blue"), ("c.png", "green")):
        Image.new("RGB", (16, 16), colour).save(folder / name)
    (folder / "broken.png").write_bytes(b"x")
    clip = load_stage(tiny_model / "clip")

    def indexed(fingerprint: str = "f") -> tuple:
        steps = index_folder(clip, fingerprint, folder, cache)
        done = 0
        while True:
            try:
                done = next(steps).total
            except StopIteration as stop:
                return stop.value, done

    index, embedded = indexed()
    assert (index.names, embedded) == (("a.png", "c.png", "deep/a.png"), 4)
    assert index.skipped == ("broken.png",)
    again, embedded = indexed()
    assert (again.names, embedded) == (index.names, 0)
    assert torch.equal(again.embeddings, index.embeddings)
    assert index.nearest(index.embeddings[2], 1)[0][0] == folder / "deep/a.png"
    Image.new("RGB", (16, 16), "white").save(folder / "d.png")
    assert indexed()[1] == 1
    assert indexed("another")[1] == 5
    for file in cache.iterdir():
        file.write_bytes(b"damaged")
    assert indexed()[0].names == ("a.png", "c.png", "d.png", "deep/a.png")


def test_a_folder_without_images_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        finish(index_folder(load_stage(tiny_model / "clip"), "f", tmp_path, tmp_path / "cache"))
