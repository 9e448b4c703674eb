import numpy as np
import pytest
from PIL import Image

from unclip.errors import OptionError
from unclip.images import to_tensor
from unclip.manipulation.upscaling import upscale
from unclip.options import GenerateOptions
from unclip.randomness import Randomness
from unclip.types import finish


def test_it_is_the_upsampler(model) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    (made,) = finish(upscale(model, image, options=GenerateOptions(size=256)))
    complete = model.complete(GenerateOptions(size=256))
    drawn = finish(model.upsample(to_tensor(image)[None], complete, Randomness([0])))
    found = to_tensor(made.image)
    assert float((found - drawn[0].clamp(-1, 1)).abs().max()) <= 1 / 255 + 1e-6


def test_the_upsampler_nearest_in_size_is_taken(model) -> None:
    image = Image.new("RGB", (150, 260), "red")
    (made,) = finish(upscale(model, image))
    assert (made.image.size, made.label) == ((600, 1040), "× 4"), "256 to 1024 alone"
    small = Image.new("RGB", (20, 30), "red")
    (made,) = finish(upscale(model, small))
    assert made.image.size == (320, 480)


def test_mistakes(model) -> None:
    image = Image.new("RGB", (64, 64), "red")
    with pytest.raises(OptionError, match="no upsampler to 64 px"):
        finish(upscale(model, image, options=GenerateOptions(size=64)))
    huge = Image.new("L", (4000, 4000))
    with pytest.raises(OptionError, match="4000 × 4000 px and would be enlarged 4 times"):
        finish(upscale(model, huge))
