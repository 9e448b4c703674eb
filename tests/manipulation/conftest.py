"""A tiny model with random weights, and pictures as users have them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from unclip.checkpoint import load_pipeline
from unclip.manipulation.made import Made
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.runtime import Runtime


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> UnCLIP:
    runtime = Runtime(torch.device("cpu"), torch.float32, channels_last=False, compile=False)
    return load_pipeline(tiny_model, runtime)


def picture(colour: str, size: tuple[int, int] = (80, 64)) -> Image.Image:
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse((20, 12, 60, 50), fill=colour)
    return image


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file with a ball of the colour."""
    folder = tmp_path_factory.mktemp("pictures")

    def make(colour: str) -> Path:
        path = folder / f"{colour}.png"
        if not path.exists():
            picture(colour).save(path)
        return path

    return make


@pytest.fixture(scope="session")
def quick() -> Callable[..., GenerateOptions]:
    """Options for a picture of 64 px in four steps."""

    def make(**values: Any) -> GenerateOptions:
        quickly = {"size": 64, "batch": 2, "decoder": {"steps": 4}}
        return GenerateOptions.parse(quickly | values, source="test")

    return make


@pytest.fixture(scope="session")
def pixels() -> Callable[[Made], np.ndarray]:
    return lambda made: np.asarray(made.image).astype(int)
