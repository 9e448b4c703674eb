"""Pictures: safe decoding, resizing, tensors in [-1, 1], PNG files with their recipe inside.

Everything that opens an image file goes through `decode`. Knows nothing of models.
"""

import contextlib
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin
from torch import Tensor

from unclip.errors import ImageError

SUFFIXES = frozenset(["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif"])
"""File endings, in lower case and without the dot, that are taken for images."""

MAX_PIXELS = 89_478_485
"""Larger pictures are refused by their header; Pillow warns from the same size on."""

# Pillow also reads formats that run other programs (EPS) or that nobody trains on.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
_RECIPE = "unclip"
_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NanumGothic.ttf",
    "AppleSDGothicNeo.ttc",
    "malgun.ttf",
    "DejaVuSans.ttf",
)
_READABLE = 128


def decode(
    source: bytes | str | Path, max_pixels: int = MAX_PIXELS, *, name: str | None = None
) -> Image.Image:
    """Read an image file as upright 8-bit RGB.

    EXIF rotation is applied, transparency is composited on white, 16-bit is reduced to 8, and
    of an animation the first frame is taken.

    Args:
        source: the bytes of a file, or its path.
        max_pixels: the largest width × height that is read.
        name: what errors call it; the path, if there is one.

    Raises:
        ImageError: it is no image, is damaged, or is too large.
    """
    with _opened(source, max_pixels, name) as (image, known), _reading(known):
        image.load()
        return _rgb(_upright(image))


def opacity(
    source: bytes | str | Path, max_pixels: int = MAX_PIXELS, *, name: str | None = None
) -> Image.Image | None:
    """The upright alpha channel of an image file, 8-bit grey; None where all is opaque.

    Raises:
        ImageError: as `decode`.
    """
    with _opened(source, max_pixels, name) as (image, known), _reading(known):
        image.load()
        if not image.has_transparency_data or image.mode[0] in "IF":
            return None  # deep grey pixels know a transparent value at most
        alpha = _upright(image).convert("RGBA").getchannel("A")
        return None if alpha.getextrema() == (255, 255) else alpha


def to_tensor(image: Image.Image | UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Turn an 8-bit RGB picture into float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(image))  # a copy: PIL's memory is read-only
    return rearrange(pixels, "h w c -> c h w").float().div_(127.5).sub_(1)


def to_pil(image: Float[Tensor, "3 h w"]) -> Image.Image:
    """Turn a picture in [-1, 1] into PIL, rounding and clipping.

    Raises:
        ImageError: it holds NaN or infinity, so it shows a failed computation.
    """
    if not torch.isfinite(image).all():
        raise ImageError("the picture holds NaN or infinity; try another dtype, such as float32")
    pixels = ((image.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(rearrange(pixels, "c h w -> h w c").contiguous().numpy())


def resize(image: Image.Image, size: int | tuple[int, int]) -> Image.Image:
    """Resize with antialiased bicubic interpolation.

    Args:
        image: an RGB picture.
        size: the length of the shorter side, keeping the proportions, or ``(height, width)``.
    """
    if isinstance(size, int):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
    else:
        height, width = size
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cut the middle ``size`` × ``size`` pixels out."""
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))


def save_png(image: Image.Image, path: str | Path, metadata: dict[str, Any]) -> None:
    """Write a PNG with ``metadata`` inside, in one piece or not at all.

    The metadata is JSON in an iTXt chunk named ``unclip``; `read_recipe` gives it back.

    Raises:
        ImageError: ``path`` exists (it is never overwritten) or cannot be written.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(_RECIPE, json.dumps(metadata, ensure_ascii=False))
    encoded = io.BytesIO()
    image.save(encoded, "PNG", pnginfo=text)
    write_new(path, encoded.getbuffer())


def check_new(path: str | Path) -> None:
    """Find out before any work whether a file may be written; the folder it is to lie in is made.

    Raises:
        ImageError: ``path`` exists (it is never overwritten), or its folder cannot be made.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ImageError(f"{path} exists and is never overwritten; choose another name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"{path.parent} cannot be made: {error.strerror}") from None


def write_new(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file in one piece or not at all.

    Raises:
        ImageError: ``path`` exists (it is never overwritten) or cannot be written.
    """
    path = Path(path)
    # Beside the target: a rename is atomic only within one file system.
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        if os.path.lexists(path):
            raise FileExistsError
        with beside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _publish(beside, path)
    except FileExistsError:
        raise ImageError(f"{path}: exists already; choose another name") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Return the metadata that `save_png` wrote into a PNG.

    Raises:
        ImageError: the file is no readable PNG, or holds no recipe.
    """
    with _opened(path, MAX_PIXELS) as (image, name), _reading(name):
        image.load()  # text chunks may follow the pixels
        text = image.info.get(_RECIPE)
    if not isinstance(text, str):
        raise ImageError(f"{name}: no recipe inside; only PNGs written by unclip carry one")
    try:
        recipe = json.loads(text)
    except json.JSONDecodeError as error:
        raise ImageError(f"{name}: its recipe is damaged: {error}") from None
    if not isinstance(recipe, dict):
        raise ImageError(f"{name}: its recipe is damaged: not a JSON object")
    return recipe


def contact_sheet(
    images: Sequence[Image.Image], columns: int, captions: Sequence[str] | None = None
) -> Image.Image:
    """Arrange pictures in rows on white, each centred in its cell, captions below.

    Captions take two lines at most; a longer one ends in an ellipsis. Under captions, pictures
    of less than 128 pixels are shown at a whole multiple of their size.
    """
    if not images:
        raise ImageError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(images):
        raise ImageError(f"{len(images)} pictures but {len(captions)} captions")
    if captions is not None:
        images = _readable(images)
    columns = max(1, min(columns, len(images)))
    gap = 8
    width, height = (max(image.size[axis] for image in images) for axis in (0, 1))
    line = max(11, width // 18)
    text = 0 if captions is None else round(2.6 * line)
    rows = -(-len(images) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, rows * (height + text + gap) + gap), "white"
    )
    draw = ImageDraw.Draw(sheet)
    for i, image in enumerate(images):
        left = gap + i % columns * (width + gap)
        top = gap + i // columns * (height + text + gap)
        sheet.paste(image, (left + (width - image.width) // 2, top + (height - image.height) // 2))
        if captions is not None:
            font = _font(captions[i], line)
            for j, words in enumerate(_wrap(captions[i], width, font.getlength)):
                draw.text((left, top + height + 2 + round(1.2 * j * line)), words, "black", font)
    return sheet


def labelled_grid(
    rows: Sequence[Sequence[Image.Image]], across: Sequence[str], down: Sequence[str]
) -> Image.Image:
    """Arrange pictures in rows and columns whose labels stand above and to the left.

    Pictures of less than 128 pixels are shown at a whole multiple of their size.
    """
    flat = _readable([image for row in rows for image in row])
    width, height = (max(image.size[axis] for image in flat) for axis in (0, 1))
    gap, line = 8, max(13, width // 18)
    font = _font("".join((*across, *down)), line)
    side = gap + max((round(font.getlength(label)) for label in down), default=0)
    top = round(1.8 * line)
    columns = len(across)
    size = (side + columns * (width + gap) + gap, top + len(rows) * (height + gap))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(across):
        shown = "".join(_wrap(label, width, font.getlength, lines=1))
        left = side + gap + column * (width + gap)
        draw.text((left + (width - font.getlength(shown)) / 2, line // 4), shown, "black", font)
    for row, label in enumerate(down):
        middle = top + row * (height + gap) + (height - line) // 2
        draw.text((gap, middle), label, "black", font)
    for place, image in enumerate(flat):
        row, column = divmod(place, columns)
        sheet.paste(image, (side + gap + column * (width + gap), top + row * (height + gap)))
    return sheet


def _readable(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Repeat pixels until the widest picture leaves room for words."""
    factor = -(-_READABLE // max(image.width for image in images))
    return [
        image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
        for image in images
    ]


@contextlib.contextmanager
def _opened(
    source: bytes | str | Path, max_pixels: int, name: str | None = None
) -> Iterator[tuple[Image.Image, str]]:
    """Open lazily and refuse by the header; yields the image and the name for errors."""
    name = name or (f"{len(source)} bytes" if isinstance(source, bytes) else str(source))
    with _reading(name):
        Image.init()
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        known = [kind for kind in _FORMATS if kind in Image.OPEN]  # builds may lack AVIF
        image = Image.open(file, formats=known)
    with image:
        if image.width * image.height > max_pixels:
            size = f"{image.width} × {image.height}"
            raise ImageError(f"{name}: {size} is more than {max_pixels} pixels; shrink it first")
        yield image, name


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on damaged files, which is nearly anything, to ImageError."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{name}: not an image of a known format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name}: too large: {error}") from None
    except Exception as error:
        raise ImageError(f"{name}: cannot be read: {error or type(error).__name__}") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF says nothing about the pixels
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _deep(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep(image: Image.Image) -> Image.Image:
    """Reduce grey pixels deeper than 8 bits: integers as 16-bit, floats as [0, 1] or [0, 255]."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        scale = 255.0 if values.max() <= 1 else 1.0
    else:
        # Pillow before 11.3 opens 16-bit PNGs as "I", and 8-bit values may come as "I" too.
        scale = 255 / 65535 if image.mode != "I" or values.max() > 255 else 1.0
    grey = np.nan_to_num(values * scale).round().clip(0, 255).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _publish(beside: Path, path: Path) -> None:
    """Give a finished file its name, failing if the name is taken."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, some network folders): claim the name first, then replace.
        path.touch(exist_ok=False)
        beside.replace(path)


def _font(text: str, size: int) -> Any:
    """Pillow's own font, or for scripts it lacks the first usual system font that is there."""
    if any(ord(letter) > 0x24F for letter in text):
        for name in _FONTS:
            with contextlib.suppress(OSError):
                return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _wrap(text: str, width: int, length: Callable[[str], float], lines: int = 2) -> list[str]:
    """Break at spaces into at most ``lines`` lines no wider than ``width`` pixels."""
    wrapped: list[str] = []
    words = text.split()
    while words and len(wrapped) < lines:
        count = len(words)
        while count > 1 and length(" ".join(words[:count])) > width:
            count -= 1
        wrapped.append(" ".join(words[:count]))
        words = words[count:]
    if wrapped and (words or length(wrapped[-1]) > width):
        last = wrapped[-1]
        while last and length(last + "…") > width:
            last = last[:-1]
        wrapped[-1] = last + "…"
    return wrapped
