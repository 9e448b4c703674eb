import io

import numpy as np
import pytest
from PIL import Image

from unclip.errors import OptionError
from unclip.manipulation.options import Reconstruct, Vary
from unclip.manipulation.reconstruction import reconstruct
from unclip.manipulation.variations import vary
from unclip.types import finish


def test_fresh_noise_needs_no_inversion(model, photo, quick, pixels) -> None:
    walk = vary(model, photo("red"), options=quick(images=2))
    stages = set()
    try:
        while True:
            stages.add(next(walk).stage)
    except StopIteration as stop:
        one, two = stop.value
    assert stages == {"decoder"}
    assert not np.array_equal(pixels(one), pixels(two))


def test_strength_0_without_noise_is_the_reconstruction(model, photo, quick, pixels) -> None:
    options = quick(batch=1)
    (same,) = finish(vary(model, photo("red"), how=Vary(strength=0), options=options))
    (back,) = finish(reconstruct(model, photo("red"), how=Reconstruct(), options=options))
    assert np.array_equal(pixels(same), pixels(back))


def test_eta_and_strength_depart_from_it(model, photo, quick, pixels) -> None:
    options = quick(batch=1, seed=3)
    ways = (Vary(strength=0), Vary(eta=0.5), Vary(strength=0.4), Vary(eta=0.5, strength=0.4))
    drawn = [finish(vary(model, photo("red"), how=way, options=options))[0] for way in ways]
    for i, one in enumerate(drawn):
        for other in drawn[i + 1 :]:
            assert not np.array_equal(pixels(one), pixels(other))


def test_unset_strength_follows_eta() -> None:
    assert Vary().departure == 1
    assert Vary(eta=0.5).departure == 0
    assert Vary(eta=0.5, strength=0.2).departure == 0.2


def test_a_batch_does_not_change_what_is_drawn(model, photo, quick, pixels) -> None:
    many = finish(vary(model, photo("red"), options=quick(images=3, batch=3)))
    one = finish(vary(model, photo("red"), options=quick(images=1, batch=1, seed=2)))
    assert np.abs(pixels(many[2]) - pixels(one[0])).max() <= 1


def test_solvers_cannot_be_walked_back(model, photo, quick) -> None:
    options = quick(decoder={"sampler": "dpm++", "steps": 4})
    with pytest.raises(OptionError, match="only ddim"):
        finish(vary(model, photo("red"), how=Vary(eta=1), options=options))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def grey16() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65535, 60 * 50).astype(np.uint16).reshape(50, 60))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.new("RGB", (40, 70), "red"), "JPEG", exif=exif)


PICTURES = {
    "tall": encoded(Image.new("RGB", (30, 400), "blue"), "PNG"),
    "one pixel": encoded(Image.new("RGB", (1, 1), "blue"), "PNG"),
    "grey": encoded(Image.new("L", (50, 60), 90), "PNG"),
    "bilevel": encoded(Image.new("1", (50, 60), 1), "PNG"),
    "palette": encoded(Image.new("RGB", (50, 60), "red").quantize(4), "GIF"),
    "transparent": encoded(Image.new("RGBA", (50, 60), (255, 0, 0, 90)), "PNG"),
    "CMYK": encoded(Image.new("CMYK", (50, 60), (9, 200, 3, 0)), "JPEG"),
    "16-bit": encoded(grey16(), "PNG"),
    "turned by EXIF": turned(),
    "animated": encoded(
        Image.new("RGB", (50, 60), "red"),
        "GIF",
        save_all=True,
        append_images=[Image.new("RGB", (50, 60), "blue")],
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_as_users_have_them(name: str, model, quick) -> None:
    (made,) = finish(vary(model, PICTURES[name], options=quick(decoder={"steps": 2})))
    assert made.image.size == (64, 64)


def test_exact_is_refused_where_nothing_is_inverted():
    with pytest.raises(OptionError, match="exact does nothing at strength 1"):
        Vary.parse({"exact": True}, source="test")
    assert Vary.parse({"exact": True, "eta": 0.5}, source="test").departure == 0
