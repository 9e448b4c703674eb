import numpy as np
import pytest

from unclip.evaluation.colours import COLOURS, asked_colours, coloured, colours_of


def picture(glyph: str, background: str, side: int = 16, size: int = 64) -> np.ndarray:
    image = np.empty((size, size, 3), np.uint8)
    image[:] = COLOURS[background]
    start = (size - side) // 2
    image[start : start + side, start : start + side] = COLOURS[glyph]
    return image


@pytest.mark.parametrize("glyph", COLOURS)
@pytest.mark.parametrize("background", COLOURS)
def test_colours_are_read_from_pixels(glyph: str, background: str) -> None:
    expected = (None if glyph == background else glyph, background)
    assert colours_of(picture(glyph, background)) == expected
    assert colours_of(picture(glyph, background, side=64, size=256)) == expected


def test_colours_survive_noise_smaller_than_half_their_distance() -> None:
    rng = np.random.default_rng(0)
    noisy = picture("red", "teal").astype(int) + rng.integers(-25, 26, (64, 64, 3))
    assert colours_of(noisy.clip(0, 255).astype(np.uint8)) == ("red", "teal")


def test_a_few_stray_pixels_are_no_glyph() -> None:
    image = picture("white", "white")
    image[30:36, 30:36] = COLOURS["blue"]  # 36 of 4,096: below 1 %
    assert colours_of(image) == (None, "white")
    image[30:37, 30:36] = COLOURS["blue"]
    assert colours_of(image) == ("blue", "white")


def test_swapped_and_half_right_colours_are_told_apart() -> None:
    images = [picture("red", "blue"), picture("blue", "red"), picture("green", "blue")]
    right = coloured(images, [("red", "blue")] * 3)
    assert right.tolist() == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize(
    ("caption", "colours"),
    [
        ("a red anchor icon on a teal background", ("red", "teal")),
        ("An orange dragon head icon on a white background", ("orange", "white")),
        ("a gray owl icon on an orange background, flat style", ("gray", "orange")),
        ("a redwood icon on a teal background", None),
        ("a red anchor", None),
        ("a red anchor icon on a sunny background", None),
        ("빨간 닻 아이콘", None),
    ],
)
def test_captions_say_which_colours_they_ask_for(caption: str, colours) -> None:
    assert asked_colours(caption) == colours
