import numpy as np
import pytest
import torch

from unclip.evaluation.objects import both_named, close_up, counted, halves, right_counts


def boxes(
    *corners: tuple[int, int], side: int = 12, size: int = 64, paper: int = 250
) -> np.ndarray:
    image = np.full((size, size, 3), paper, np.uint8)
    for top, left in corners:
        image[top : top + side, left : left + side] = (200, 30, 30)
    return image


def test_halves_show_one_thing_each() -> None:
    image = boxes((24, 8), (24, 44))
    first, second = halves(image, "left")
    assert np.array_equal(first, boxes((24, 8)))
    assert np.array_equal(second, boxes((24, 44)))
    image = boxes((4, 20), (44, 30))
    first, second = halves(image, "above")
    assert np.array_equal(first, boxes((4, 20)))
    assert np.array_equal(second, boxes((44, 30)))


def test_a_close_up_fills_the_picture_with_the_thing() -> None:
    small, large = boxes((40, 6), side=8), boxes((4, 4), side=56)
    for image in (small, large):
        found = (close_up(image)[..., 1] < 140).astype(int)  # the thing is red on white
        rows, columns = np.nonzero(found)
        assert 0.6 < found.mean() < 0.9
        assert abs(rows.mean() - 31.5) < 1.5
        assert abs(columns.mean() - 31.5) < 1.5
    speck = small.copy()
    speck[2:4, 60:62] = 0
    assert np.array_equal(close_up(speck), close_up(small))
    blank = boxes()
    assert np.array_equal(close_up(blank), blank)


@pytest.mark.parametrize("corners", [[], [(4, 4)], [(4, 4), (4, 40)], [(4, 4), (40, 4), (40, 40)]])
@pytest.mark.parametrize("scale", [1, 4])
def test_things_are_counted(corners: list, scale: int) -> None:
    image = boxes(*corners).repeat(scale, axis=0).repeat(scale, axis=1)
    assert counted(image) == len(corners)


def test_a_small_part_of_a_thing_and_dirt_do_not_count() -> None:
    image = boxes((20, 20), side=20)
    image[10:17, 27:34] = 0  # a dot above the thing: an eighth of its pixels
    image[2:5, 2:5] = 0
    assert counted(image) == 1
    image[44:58, 20:34] = 0  # half of its pixels: another thing
    assert counted(image) == 2


def test_a_spiral_is_one_thing() -> None:
    image = np.full((64, 64, 3), 255, np.uint8)
    for turn in range(0, 28, 8):
        image[4 + turn, 4 + turn : 60 - turn] = 0
        image[4 + turn : 60 - turn, 60 - turn - 1] = 0
        image[60 - turn - 1, 4 + turn : 60 - turn] = 0
        image[4 + turn + 8 : 60 - turn, 4 + turn] = 0
        image[4 + turn + 8, 4 + turn : 4 + turn + 9] = 0
    assert counted(image) == 1


def test_noise_of_the_background_is_no_thing() -> None:
    rng = np.random.default_rng(0)
    noisy = boxes((4, 4), (40, 40), paper=200).astype(int) + rng.integers(-15, 16, (64, 64, 1))
    assert counted(noisy.clip(0, 255).astype(np.uint8)) == 2
    assert right_counts([noisy.clip(0, 255).astype(np.uint8)] * 2, [2, 3]).tolist() == [True, False]


def test_both_halves_must_be_named() -> None:
    z = torch.eye(3)
    right = torch.stack([z[:1].repeat(3, 1), z[:1].repeat(3, 1)])
    nouns = torch.stack([torch.stack([z[0], z[1], z[2]])] * 2)
    first, second = z[[0, 0]], z[[0, 1]]
    assert both_named(first, second, (nouns, nouns), k=1).tolist() == [True, False]
    assert both_named(first, second, (nouns, nouns), k=3).all()
    assert not both_named(first, second, (right, right), k=1).any()  # all alike: nothing is found
