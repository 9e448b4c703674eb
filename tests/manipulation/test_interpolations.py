import numpy as np
import pytest

from unclip.errors import ImageError, OptionError
from unclip.manipulation.interpolations import interpolate, places
from unclip.manipulation.options import Interpolate, Reconstruct
from unclip.manipulation.reconstruction import reconstruct
from unclip.types import finish


def test_frames_are_even_over_all_arcs() -> None:
    assert places(2, 3) == [(0, 0.0), (0, 0.5), (0, 1.0)]
    assert places(3, 5) == [(0, 0.0), (0, 0.5), (1, 0.0), (1, 0.5), (1, 1.0)]
    along = [arc + theta for arc, theta in places(4, 11)]
    assert along == pytest.approx(list(np.linspace(0, 3, 11)))


def test_ends_of_turned_noise_reconstruct(model, photo, quick, pixels) -> None:
    # Told to the walk, since otherwise it is measured on all pictures together.
    options = quick(batch=1, decoder={"steps": 4, "x0_error": 0.05})
    how = Interpolate(frames=3, noise="slerp")
    made = finish(interpolate(model, photo("red"), photo("blue"), how=how, options=options))
    for frame, colour in ((made[0], "red"), (made[2], "blue")):
        (back,) = finish(reconstruct(model, photo(colour), how=Reconstruct(), options=options))
        assert np.array_equal(pixels(frame), pixels(back))
    assert [frame.label for frame in made] == ["θ 0.00", "θ 0.50", "θ 1.00"]


def test_prompts_may_stand_between(model, photo, quick, pixels) -> None:
    how = Interpolate(frames=3)
    made = finish(interpolate(model, photo("red"), "a blue ball", how=how, options=quick()))
    assert not np.array_equal(pixels(made[0]), pixels(made[2]))


def test_a_grid_has_its_pictures_at_the_corners(model, photo, quick, pixels) -> None:
    four = [photo(colour) for colour in ("red", "blue", "green", "yellow")]
    options = quick(batch=1, decoder={"steps": 2})
    how = Interpolate(frames=3, grid=True)
    made = finish(interpolate(model, *four, how=how, options=options))
    assert len(made) == 9
    corners = [made[place] for place in (0, 2, 6, 8)]
    for corner, end in zip(corners, four, strict=True):
        way = Interpolate(frames=2)
        alone = finish(interpolate(model, end, end, how=way, options=options))[0]
        assert np.abs(pixels(corner) - pixels(alone)).max() <= 1
    assert made[5].label == "0.50, 1.00"


def test_mistakes(model, photo, quick) -> None:
    def refuse(match: str, *items, error: type[Exception] = OptionError, **how) -> None:
        walk = interpolate(model, *items, how=Interpolate(**how), options=quick())
        with pytest.raises(error, match=match):
            finish(walk)

    refuse("two pictures", photo("red"))
    refuse("four corners", photo("red"), photo("blue"), grid=True)
    refuse("is a prompt and has no x_T", photo("red"), "a ball", noise="slerp")
    refuse("no such file", photo("red"), "nowhere.png", error=ImageError)


def test_exact_is_refused_where_nothing_is_inverted():
    with pytest.raises(OptionError, match="exact does nothing with fixed noise"):
        Interpolate.parse({"exact": True}, source="test")
    assert Interpolate.parse({"exact": True, "noise": "slerp"}, source="test").exact
