import numpy as np
import pytest

from unclip.errors import OptionError
from unclip.manipulation.mixing import mix
from unclip.manipulation.options import Mix, Vary
from unclip.manipulation.variations import vary
from unclip.types import finish


def test_all_weight_on_one_picture_varies_it(model, photo, quick, pixels) -> None:
    options, how = quick(images=2), Mix(weights=(1, 0))
    mixed = finish(mix(model, photo("red"), "a rocket", how=how, options=options))
    varied = finish(vary(model, photo("red"), how=Vary(), options=options))
    for one, other in zip(mixed, varied, strict=True):
        assert np.abs(pixels(one) - pixels(other)).max() <= 1


def test_everything_mixed_counts(model, photo, quick, pixels) -> None:
    ways = [(1, 1, 1), (3, 1, 1), (1, 3, 1), (1, 1, 3)]
    items = (photo("red"), "a rocket", photo("blue"))
    drawn = [
        pixels(finish(mix(model, *items, how=Mix(weights=way), options=quick()))[0]) for way in ways
    ]
    assert all(not np.array_equal(drawn[0], other) for other in drawn[1:])


def test_mistakes(model, photo, quick) -> None:
    with pytest.raises(OptionError, match="2 weights for 1 images"):
        finish(mix(model, photo("red"), how=Mix(weights=(1, 2)), options=quick()))
    with pytest.raises(OptionError, match="nothing to mix"):
        finish(mix(model, options=quick()))
    with pytest.raises(OptionError, match="add up to 0"):
        Mix.parse({"weights": (1, -1)}, source="test")
