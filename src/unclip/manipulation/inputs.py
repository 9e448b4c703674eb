"""Files that pictures are made from, named by their SHA-256: the same file or none."""

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.errors import ImageError
from unclip.images import SUFFIXES, decode, opacity

MAX_BYTES = 2**28
"""Larger files are not read."""
MAX_EMBEDDED = 2**25
"""Bytes of inputs that a PNG may carry; readers stop at 64 MB of text."""

Picture = Path | str | bytes | Image.Image
"""What the API takes for an image."""


@dataclass(frozen=True)
class Input:
    """The content of a file."""

    name: str
    """Of the file, without its folder: paths are nobody's business."""
    data: bytes = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Of the content, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def image(self) -> Image.Image:
        """The picture, as upright 8-bit RGB.

        Raises:
            ImageError: it is none, is damaged, or is too large.
        """
        return decode(self.data, name=self.name)

    @cached_property
    def opacity(self) -> Image.Image | None:
        """Its alpha channel, or None where all is opaque."""
        return opacity(self.data, name=self.name)

    def record(self, embed: bool) -> dict[str, Any]:
        """What a recipe says of it; with ``embed`` its content too."""
        said = {"name": self.name, "sha256": self.sha256}
        return {**said, "data": base64.b64encode(self.data).decode()} if embed else said


Item = Input | str
"""An image, or a prompt."""


def read_input(source: Picture | Input) -> Input:
    """Take an image as a caller has it.

    Raises:
        ImageError: a file that cannot be read or is too large to be.
    """
    match source:
        case Input():
            return source
        case bytes():
            return Input("image", source)
        case Image.Image():
            encoded = io.BytesIO()
            source.save(encoded, "PNG")
            return Input("image.png", encoded.getvalue())
    path = Path(source)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ImageError(f"{path}: larger than {MAX_BYTES // 2**20} MiB; shrink it first")
        return Input(path.name, path.read_bytes())
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_item(source: Picture | Input) -> Item:
    """An image, or a prompt: a text is one unless it names a file or ends as images do."""
    if not isinstance(source, str):
        return read_input(source)
    ending = source.rpartition(".")[2].lower()
    named = ending in SUFFIXES and "." in source
    try:
        named = named or Path(source).is_file()
    except (OSError, ValueError):  # too long for a path, or no path at all
        return source
    return read_input(source) if named else source


def find_inputs(
    records: Iterable[Mapping[str, Any]], folders: Sequence[Path], given: Sequence[Path] = ()
) -> list[Input]:
    """The inputs that a recipe names, from the recipe itself or from files.

    Args:
        records: what `Input.record` wrote.
        folders: where to look for files of their names, in this order.
        given: files to take whatever their names.

    Raises:
        ImageError: one is nowhere, or a file of its name has another content.
    """
    by_hash = {found.sha256: found for found in map(read_input, given)}
    return [_find(record, folders, by_hash) for record in records]


def _find(
    record: Mapping[str, Any], folders: Sequence[Path], by_hash: Mapping[str, Input]
) -> Input:
    # A name from a stranger's recipe must not lead out of the folders.
    name, wanted = Path(str(record.get("name", ""))).name, record.get("sha256")
    if wanted in by_hash:
        return Input(name, by_hash[str(wanted)].data)
    if isinstance(data := record.get("data"), str):
        try:
            found = Input(name, base64.b64decode(data, validate=True))
        except ValueError:
            raise ImageError(f"{name}: its copy in the recipe is damaged") from None
        if found.sha256 != wanted:
            raise ImageError(f"{name}: its copy in the recipe is not what the recipe says")
        return found
    others = []
    for path in (folder / name for folder in folders if name):
        if path.is_file():
            found = read_input(path)
            if found.sha256 == wanted:
                return found
            others.append(path)
    if others:
        raise ImageError(
            f"{others[0]} is not the {name} that was used: its SHA-256 differs from "
            f"{str(wanted)[:12]}…; name the right file with --input"
        )
    raise ImageError(f"{name} (SHA-256 {str(wanted)[:12]}…) is needed; name it with --input")
