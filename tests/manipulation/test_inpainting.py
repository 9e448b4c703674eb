import io

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.errors import OptionError
from unclip.images import resize, to_tensor
from unclip.manipulation.inpainting import inpaint, make_canvas
from unclip.manipulation.inputs import Input, read_input
from unclip.manipulation.options import Inpaint
from unclip.types import finish


def noisy(width: int = 64, height: int = 64) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, name: str = "x.png") -> Input:
    held = io.BytesIO()
    image.save(held, "PNG")
    return Input(name, held.getvalue())


def test_the_known_part_is_kept_and_the_rest_drawn(model, quick) -> None:
    image = noisy()
    how = Inpaint(box=(16, 8, 40, 30), resamplings=2)
    (made,) = finish(inpaint(model, image, how=how, options=quick()))
    before, after = np.asarray(image).astype(int), np.asarray(made.image).astype(int)
    inside = np.zeros((64, 64), bool)
    inside[8:30, 16:40] = True
    assert np.array_equal(before[~inside], after[~inside])
    assert np.abs(before[inside] - after[inside]).mean() > 10


def test_joins_are_sharp_after_upsampling(model, quick) -> None:
    image = noisy(256, 256)
    how = Inpaint(box=(50, 60, 131, 133), resamplings=1)
    (made,) = finish(inpaint(model, image, how=how, options=quick(size=256)))
    same = (np.asarray(image) == np.asarray(made.image)).all(-1)
    inside = np.zeros((256, 256), bool)
    inside[60:133, 50:131] = True
    assert same[~inside].all(), "to the last pixel before the box"
    assert same[inside].mean() < 0.01


def test_the_same_result_whatever_lies_under_the_mask(model, quick) -> None:
    one = noisy()
    other = one.copy()
    other.paste("black", (16, 8, 40, 30))
    how, options = Inpaint(box=(16, 8, 40, 30), prompt="a ball"), quick()
    drawn = [finish(inpaint(model, image, how=how, options=options))[0] for image in (one, other)]
    assert np.array_equal(np.asarray(drawn[0].image), np.asarray(drawn[1].image))


def test_masks_of_every_kind_say_the_same() -> None:
    image = noisy()
    white = Image.new("L", image.size)
    white.paste(255, (10, 20, 30, 50))
    clear = Image.new("RGBA", image.size)
    clear.putalpha(white.point(lambda value: 255 - value))
    holed = image.copy()
    holed.putalpha(clear.getchannel("A"))
    plain, box = encoded(image), Inpaint(box=(10, 20, 30, 50))
    wanted = make_canvas(plain, None, box).known(64, 1, generous=True).mask
    assert wanted.sum() == 20 * 30
    for picture, mask in (
        (plain, encoded(white)),
        (plain, encoded(clear)),
        (encoded(holed), None),
    ):
        found = make_canvas(picture, mask, Inpaint()).known(64, 1, generous=True).mask
        assert torch.equal(found, wanted)


def test_small_sizes_draw_what_the_mask_touches() -> None:
    canvas = make_canvas(encoded(noisy(256, 256)), None, Inpaint(box=(1, 1, 9, 9)))
    assert canvas.known(64, 1, generous=True).mask.sum() == 9
    assert canvas.known(256, 1, generous=False).mask.sum() == 64


def test_nothing_bleeds_from_under_the_mask() -> None:
    image = Image.new("RGB", (256, 256), "white")
    image.paste("black", (64, 64, 128, 128))
    canvas = make_canvas(encoded(image), None, Inpaint(box=(64, 64, 128, 128)))
    known = canvas.known(64, 1, generous=True)
    assert float((known.sample * (1 - known.mask) - (1 - known.mask)).abs().max()) == 0


def test_outpainting_adds_room(model, quick) -> None:
    image = noisy(64, 64)
    how = Inpaint(extend=(0, 0, 64, 0))
    canvas = make_canvas(encoded(image), None, how)
    assert canvas.inner == (0, 32, 128, 96)
    (made,) = finish(inpaint(model, image, how=how, options=quick()))
    assert made.image.size == (64, 32)
    left = np.asarray(made.image).astype(int)[:, :30]
    shrunk = np.asarray(resize(image, (32, 32))).astype(int)[:, :30]
    assert np.abs(left - shrunk).mean() < 4, "the picture itself stands where it was"


def test_prompt_and_picture_share_z_i(model, quick) -> None:
    image, box = noisy(), (16, 8, 40, 30)
    ways = [
        Inpaint(box=box),
        Inpaint(box=box, prompt="a ball"),
        Inpaint(box=box, prompt="a ball", image_weight=0.5),
    ]
    drawn = [
        np.asarray(finish(inpaint(model, image, how=way, options=quick()))[0].image) for way in ways
    ]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])


def test_mistakes(model, quick) -> None:
    image = noisy()

    def refuse(match: str, mask=None, options=None, **how) -> None:
        with pytest.raises(OptionError, match=match):
            finish(
                inpaint(
                    model,
                    image,
                    mask,
                    how=Inpaint.parse(how, source="test"),
                    options=options or quick(),
                )
            )

    refuse("nothing is masked")
    refuse("everything is masked", mask=Image.new("L", (64, 64), 255))
    refuse("must have the picture's size", mask=Image.new("L", (64, 63), 255))
    refuse("reaches beyond", box=(0, 0, 65, 3))
    refuse("no prompt", box=(0, 0, 5, 3), image_weight=0.5)
    refuse("ddim or ancestral", box=(0, 0, 5, 3), options=quick(decoder={"sampler": "unipc"}))
    refuse("hold a pixel", box=(5, 0, 5, 3))
    refuse("one at least above 0", extend=(0, 0, 0, 0))


def test_inputs_are_read_alike() -> None:
    image = noisy()
    assert torch.equal(to_tensor(read_input(image).image), to_tensor(image))
