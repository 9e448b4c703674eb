"""Sixteen drawn images with captions, for the commands that train."""

from pathlib import Path

import pytest
from PIL import Image, ImageDraw


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, colour in enumerate(("red", "green", "blue", "yellow") * 4):
        image = Image.new("RGB", (256, 256), "white")
        ImageDraw.Draw(image).ellipse((40, 40, 200, 160 + 4 * number), fill=colour)
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} ball\n")
    return folder
