import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip import images
from unclip.data.source import BadSample
from unclip.data.transforms import RandomCropMultiple, SquareResize, Transform

RAMP = np.indices((40, 60)).transpose(1, 2, 0).astype(np.uint8)
PIXELS = np.concatenate([RAMP, np.zeros((40, 60, 1), np.uint8)], axis=2)
"""Red is the row, green the column: every crop shows where it is from."""


def corner(image: torch.Tensor) -> tuple[int, int]:
    row, column, _ = ((image[:, 0, 0] + 1) * 127.5).round().int().tolist()
    return row, column


def test_square_centre() -> None:
    image = SquareResize(size=40)(PIXELS, 1, "a")
    assert image.shape == (3, 40, 40)
    assert corner(image) == (0, 10)
    assert torch.equal(image, SquareResize(size=40)(PIXELS, 2, "a"))


def test_square_random_reaches_both_ends() -> None:
    crop = SquareResize(size=40, crop="random")
    columns = {corner(crop(PIXELS, seed, "a"))[1] for seed in range(300)}
    assert columns == set(range(21))


@settings(deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 50))
def test_square_of_any_size(height: int, width: int, size: int) -> None:
    pixels = np.full((height, width, 3), 7, np.uint8)
    image = SquareResize(size=size, crop="random")(pixels, 5, "a")
    assert image.shape == (3, size, size)
    assert torch.allclose(image, torch.tensor(7 / 127.5 - 1))


def test_crops_are_aligned_and_reach_everywhere() -> None:
    crop = RandomCropMultiple(size=24, multiple=4)
    found = {corner(crop(PIXELS, seed, "a")) for seed in range(1000)}
    assert found == {(row, column) for row in range(0, 17, 4) for column in range(0, 37, 4)}
    assert torch.equal(crop(PIXELS, 3, "a"), crop(PIXELS, 3, "a"))


def test_crop_after_reduction() -> None:
    crop = RandomCropMultiple(size=8, image_size=20)
    reduced = images.to_tensor(images.resize(images.Image.fromarray(PIXELS), 20))
    assert reduced.shape == (3, 20, 30)
    image = crop(PIXELS, 0, "a")
    places = [(top, left) for top in range(0, 13, 4) for left in range(0, 23, 4)]
    assert any(torch.equal(image, reduced[:, t : t + 8, x : x + 8]) for t, x in places)


def test_crops_prefer_edges_if_asked() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:16, :16] = np.indices((16, 16)).sum(0)[..., None] % 2 * 255
    uniform, keen = (RandomCropMultiple(size=16, candidates=c) for c in (1, 8))
    hits = [sum(crop(pixels, s, "a").std() > 0 for s in range(200)) for crop in (uniform, keen)]
    assert hits[1] > 2 * hits[0]


def test_small_images_are_not_enlarged_for_upsamplers() -> None:
    with pytest.raises(BadSample, match=r"photo: image too small \(60 × 40, 48 are needed\)"):
        RandomCropMultiple(size=16, image_size=48)(PIXELS, 0, "photo")
    with pytest.raises(BadSample, match="image too small"):
        RandomCropMultiple(size=41)(PIXELS, 0, "photo")


def test_keeps_is_true_only_of_the_identity() -> None:
    for transform in (SquareResize(size=40), RandomCropMultiple(size=40)):
        assert isinstance(transform, Transform)
        assert transform.keeps(40, 40)
        assert not transform.keeps(40, 60)
        square = PIXELS[:, :40]
        assert torch.equal(transform(square, 1, "a"), images.to_tensor(square))
    assert not RandomCropMultiple(size=40, image_size=48).keeps(40, 40)
