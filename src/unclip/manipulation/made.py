"""A picture that a manipulation made, and the recipe it can be made from again."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor

import unclip
from unclip.config import Config
from unclip.errors import ImageError
from unclip.images import save_png, to_pil
from unclip.manipulation.inputs import MAX_EMBEDDED, Input, Item
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.types import Step


@dataclass(frozen=True)
class Made:
    """One picture of those a manipulation makes."""

    image: Image.Image
    label: str
    """What sets it apart from its neighbours, such as ``θ 0.25``."""
    recipe: dict[str, Any]
    items: tuple[Item, ...]
    """What it was made from: what the recipe names."""

    def save(self, path: Path | str, *, embed_inputs: bool = False) -> Path:
        """Write a PNG with the recipe inside, and with ``embed_inputs`` the files it was made from.

        Raises:
            ImageError: the file exists, cannot be written, or the inputs are too large to embed.
        """
        files = [item for item in self.items if isinstance(item, Input)]
        if embed_inputs and (size := sum(len(file.data) for file in files)) > MAX_EMBEDDED:
            raise ImageError(
                f"{path}: {size / 2**20:.0f} MiB of inputs are too much to store in a PNG (at most "
                f"{MAX_EMBEDDED // 2**20}); leave --embed-inputs away and keep the files"
            )
        recipe = {**self.recipe, "items": [_record(item, embed_inputs) for item in self.items]}
        save_png(self.image, path, recipe)
        return Path(path)


Making = Generator[Step, None, list[Made]]
"""A manipulation at work: yields sampling steps, returns the pictures in order."""


def _record(item: Item, embed: bool) -> dict[str, Any]:
    return item.record(embed) if isinstance(item, Input) else {"prompt": item}


@dataclass(frozen=True)
class Job:
    """A manipulation and everything its pictures depend on."""

    command: str
    items: tuple[Item, ...]
    """Images and prompts, in the order they were given in."""
    how: Config
    options: GenerateOptions
    """Complete, but for a sweep, whose cells complete them."""

    def made(
        self, model: UnCLIP, images: Float[Tensor, "b 3 h w"], labels: Sequence[str]
    ) -> list[Made]:
        """The pictures, each with its recipe."""
        return self.of([to_pil(image) for image in images], labels, model)

    def of(
        self, pictures: Sequence[Image.Image], labels: Sequence[str], model: UnCLIP
    ) -> list[Made]:
        """The same for pictures that are no tensors any more."""
        recipe = {
            "software": f"unclip {unclip.__version__}",
            "command": self.command,
            "model": model.name,
            "fingerprint": model.fingerprint,
            "items": [_record(item, embed=False) for item in self.items],
            "how": self.how.model_dump(mode="json"),
            "options": self.options.model_dump(mode="json", exclude_unset=True),
            "computed": model.computed(self.options.batch),
        }
        return [
            Made(picture, label, {**recipe, "picture": number}, self.items)
            for number, (picture, label) in enumerate(zip(pictures, labels, strict=True))
        ]
