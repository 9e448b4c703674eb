"""Which small pictures the decoder draws, where crops lie, and that drawn ones are the same."""

from types import SimpleNamespace

import pytest
import redrawing
import torch
from redrawing import Redrawing
from torch import nn

from unclip.loading import load
from unclip.randomness import Randomness
from unclip.types import Batch
from unclip.upsampler.degradation import NoCorruption
from unclip.upsampler.resize import shrink

SIDE, CROP, FACTOR = 64, 32, 4


class Seen(nn.Module):
    """Stands in for an upsampler, and keeps what it is to learn from."""

    config = SimpleNamespace(factor=FACTOR, corruption=NoCorruption())

    def loss(self, high, low, randomness):
        self.high, self.low = high, low
        return {"loss": high.mean()}


@pytest.fixture
def objective(monkeypatch):
    """The decoder would draw everything black."""
    monkeypatch.setattr(redrawing, "CROP", CROP)
    monkeypatch.setattr(Redrawing, "__init__", lambda self: None)
    black = lambda self, images, captions, randomness: torch.full_like(images, -1)  # noqa: E731
    monkeypatch.setattr(Redrawing, "redraw", black)
    return Redrawing()


def batch(count: int) -> Batch:
    """Smooth pictures: no place looks like another."""
    y, x = torch.meshgrid(torch.linspace(0, 1, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    images = torch.stack([torch.stack([y, x, y * x]) * (0.5 + i / 20) for i in range(count)])
    return Batch(tuple(map(str, range(count))), images, captions=("a disc",) * count)


def test_half_of_the_small_pictures_are_drawn(objective) -> None:
    seen = Seen()
    objective(seen, batch(8), Randomness(range(8)))
    assert (seen.low[:4] == -1).all()
    assert (seen.low[4:] >= 0).all()


def test_small_and_large_crops_show_the_same_place(objective) -> None:
    seen = Seen()
    objective(seen, batch(16), Randomness(range(16)))
    assert seen.high.shape == (16, 3, CROP, CROP)
    assert seen.low.shape == (16, 3, CROP // FACTOR, CROP // FACTOR)
    inside = (..., slice(2, -2), slice(2, -2))  # shrinking sees what lies beyond a crop's edge
    shrunk = shrink(seen.high, FACTOR)[8:]
    assert torch.allclose(shrunk[inside], seen.low[8:][inside], atol=1e-3)
    assert len({float(crop[0, 0, 0]) for crop in shrunk}) > 3, "places differ"


def test_a_redrawn_picture_is_the_same_picture_and_not_a_copy() -> None:
    model = load("emoji")
    with model.clip.use() as clip, model.decoder.use() as decoder:
        y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
        images = torch.ones(4, 3, 64, 64)
        for number, image in enumerate(images):
            image[:, (x - 20 - 6 * number) ** 2 + (y - 32) ** 2 < 200] = -0.8
            image[number % 3] = 1
        drawn = Redrawing(clip, decoder, model.defaults.decoder).redraw(
            images, ("a disc",) * 4, Randomness(range(4))
        )
    error = (drawn - images).square().mean(dim=(1, 2, 3))
    others = (drawn - images.roll(1, 0)).square().mean(dim=(1, 2, 3))
    assert drawn.shape == images.shape
    assert (error > 1e-5).all()
    assert (4 * error < others).all()
