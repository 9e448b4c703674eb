"""Reads what `build.py` packed: the table of drawings and their pixels at any side.

Knows nothing of scenes or captions. An atlas pickles as its folder, so loader workers reopen it.
"""

import io
import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from packages import BY_KEY, ArtSet
from PIL import Image

from unclip.errors import DataError


@dataclass(frozen=True, slots=True)
class Row:
    """One drawing with the words for it."""

    number: int
    concept: str
    cluster: str
    art: ArtSet
    split: str
    border: float
    group: int
    names: dict[str, tuple[str, ...]]
    keywords: dict[str, tuple[str, ...]]
    vague: tuple[str, ...]

    @property
    def icon(self) -> bool:
        """Whether the name is an icon's, which need not be a noun."""
        return self.group < 0


class Atlas:
    """Drawings, premultiplied RGBA.

    Args:
        folder: where `build.py` packed them.
        size: side of the scenes they are meant for: 64, 256 or 1024.
        keep: how many decoded drawings to remember, for sizes above 64.
    """

    def __init__(self, folder: Path | str, size: int = 64, keep: int = 256) -> None:
        self.folder, self.size, self.keep = Path(folder), size, keep
        needed = self.folder / ("rgba/64.npy" if size == 64 else f"{size}.webp")
        if not needed.exists() or not (self.folder / "drawings.json").exists():
            raise DataError(
                f"{self.folder} has no drawings for {size} px; "
                f"run python recipes/emoji/build.py --sizes 64,{size}"
            )
        table = json.loads((self.folder / "drawings.json").read_text(encoding="utf-8"))
        self.held_words: dict[str, list[str]] = table["held_words"]
        self.held_keywords: dict[str, dict[str, list[str]]] = table["held_keywords"]
        concepts = {key: _words(entry) for key, entry in table["concepts"].items()}
        self.rows = [_row(i, d, concepts[d["concept"]]) for i, d in enumerate(table["drawings"])]
        self._decoded: OrderedDict[int, Image.Image] = OrderedDict()

    def __getstate__(self) -> dict:
        return {"folder": self.folder, "size": self.size, "keep": self.keep}

    def __setstate__(self, state: dict) -> None:
        self.__init__(**state)

    @cached_property
    def _small(self) -> dict[int, np.ndarray]:
        paths = (self.folder / "rgba").glob("*.npy")
        return {int(path.stem): np.load(path, mmap_mode="r") for path in paths}

    @cached_property
    def _offsets(self) -> np.ndarray:
        return np.load(self.folder / f"{self.size}.npy")

    @cached_property
    def _blob(self) -> np.ndarray:
        return np.memmap(self.folder / f"{self.size}.webp", np.uint8, "r")

    @cached_property
    def available(self) -> np.ndarray:
        """Which rows have pixels at this size, as booleans."""
        if self.size == 64:
            return np.ones(len(self.rows), bool)
        return np.diff(self._offsets) > 0

    def pixels(self, row: int, side: int) -> UInt8[np.ndarray, "side side 4"]:
        """One drawing at ``side`` pixels.

        At 64 the side must be one that was packed; above, any side up to ``size`` will do.
        """
        if self.size == 64:
            return self._small[side][row]
        image = self._decoded.get(row)
        if image is None:
            start, stop = self._offsets[row : row + 2]
            image = Image.open(io.BytesIO(self._blob[start:stop].tobytes())).convert("RGBa")
            self._decoded[row] = image
            if len(self._decoded) > self.keep:
                self._decoded.popitem(last=False)
        if side != image.width:
            image = image.resize((side, side), Image.Resampling.HAMMING)
        return np.asarray(image)


def _words(entry: dict) -> dict:
    pairs = ("names", "keywords")
    return {
        "cluster": entry["cluster"],
        "group": entry["group"],
        "vague": tuple(entry["vague"]),
        **{part: {k: tuple(v) for k, v in entry[part].items()} for part in pairs},
    }


def _row(number: int, drawing: dict, words: dict) -> Row:
    return Row(
        number=number,
        concept=drawing["concept"],
        art=BY_KEY[drawing["art"]],
        split=drawing["split"],
        border=drawing["border"],
        **words,
    )
