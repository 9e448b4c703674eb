import numpy as np
import pytest
import torch
from PIL import Image

from unclip.clip.pixels import prepare, square


def picture(height, width):
    return np.random.default_rng(0).integers(64, 192, (height, width, 3), dtype=np.uint8)


def as_tensor(pixels):
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("shape", [(64, 64), (50, 70), (90, 33), (20, 41), (32, 40)])
def test_agrees_with_pillow(shape):
    image = Image.fromarray(picture(*shape))
    short, sides = min(shape), (image.width, image.height)
    width, height = (int(32 * side / short) for side in sides)
    expected = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 32) // 2, (height - 32) // 2
    expected = as_tensor(expected.crop((left, top, left + 32, top + 32)))
    # Pillow rounds (and clamps: hence no extreme colours) to 8 bits after each of two passes.
    assert (square(as_tensor(image), 32) - expected).abs().max() < 1.5 / 127.5
    squashed = as_tensor(image.resize((32, 32), Image.Resampling.BICUBIC))
    assert (square(as_tensor(image), 32, "squash") - squashed).abs().max() < 1.5 / 127.5


def test_the_right_size_is_left_alone():
    image = as_tensor(picture(32, 32)) * 1.5  # nothing is clamped either
    assert square(image, 32) is image


def test_resized_images_stay_in_range():
    checker = (torch.arange(21)[:, None] + torch.arange(21)) % 2 * 2.0 - 1
    enlarged = square(checker.expand(1, 3, -1, -1), 64)
    assert enlarged.min() == -1
    assert enlarged.max() == 1


def test_standardises_by_channel():
    image = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    values = prepare(image, 8, (0.5, 0.4, 0.3), (0.5, 0.25, 0.1))
    assert values.shape == (2, 3, 8, 8)
    expected = torch.tensor([-1.0, 0.4, 7.0]).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    torch.testing.assert_close(values, expected)
    assert prepare(image.bfloat16(), 8, (0.5, 0.4, 0.3), (0.5, 0.25, 0.1)).dtype == torch.float32
