"""Pictures for the tests of datasets."""

import io
import struct
import zlib

from PIL import Image


def picture(i: int, size: tuple[int, int] = (12, 10)) -> Image.Image:
    """A picture that shows its number: its colour."""
    return Image.new("RGB", size, (i % 256, i // 256, 100))


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG whose header claims 60,000 × 60,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk
