"""Crop positions: alignment, uniformity, preference for edges."""

import numpy as np

from unclip.upsampler.crops import choose_crop


def crops(image: np.ndarray, count: int, **options) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([choose_crop(image, 16, 4, rng, **options) for _ in range(count)])


def test_positions_are_aligned_and_reach_every_place():
    found = crops(np.zeros((64, 48, 3), np.uint8), 3000)
    assert (found % 4 == 0).all()
    assert set(found[:, 0]) == set(range(0, 49, 4))
    assert set(found[:, 1]) == set(range(0, 33, 4))
    counts = np.bincount(found[:, 0] // 4)
    assert counts.min() > 0.7 * counts.mean()


def test_an_image_of_the_crops_size_has_one_place():
    assert choose_crop(np.zeros((16, 16, 3), np.uint8), 16, 4, np.random.default_rng(0), 4) == (
        0,
        0,
    )


def test_candidates_prefer_edges_and_keep_some_blanks():
    image = np.zeros((128, 128, 3), np.uint8)
    image[80:, 80:] = np.random.default_rng(1).integers(0, 256, (48, 48, 3))

    def share(found: np.ndarray) -> float:
        return float(((found[:, 0] > 64) & (found[:, 1] > 64)).mean())

    uniform, weighted = share(crops(image, 600)), share(crops(image, 600, candidates=4))
    assert 0.1 < uniform < 0.3
    assert weighted > 2 * uniform
    assert weighted < 0.95


def test_blank_images_are_cropped_uniformly():
    found = crops(np.full((64, 64, 3), 200, np.uint8), 1000, candidates=3)
    assert len(np.unique(found, axis=0)) > 0.95 * 13 * 13


def test_the_same_seed_cuts_the_same_place():
    image = np.random.default_rng(2).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(crops(image, 20, candidates=4), crops(image, 20, candidates=4))
