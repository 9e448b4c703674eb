"""Captions as they lie in files: one a line in text files, one or a list in JSON and CSV."""

import json
from typing import Any

from unclip.data.source import BadSample

COLUMNS = ("text", "caption", "captions", "texts")
"""Names under which metadata may hold captions; the first that is there counts."""


def from_text(data: bytes, key: str) -> tuple[str, ...]:
    """Read the lines of a caption file; blank ones are left out.

    Raises:
        BadSample: it is not UTF-8, or has no caption.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSample(key, "caption is not UTF-8", f"at byte {error.start}") from None
    return _filled(text.splitlines(), key)


def from_value(value: Any, key: str) -> tuple[str, ...]:
    """Read a caption or a list of captions, as JSON holds them (or a CSV cell, as text).

    Raises:
        BadSample: there is no caption, or it is no text.
    """
    if value is None:
        raise BadSample(key, "no caption")
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # a caption may well begin with a bracket
            value = [value]
    listed = value if isinstance(value, list) else [value]
    if not all(isinstance(caption, str) for caption in listed):
        raise BadSample(key, "caption is not text", f"it is {str(value)[:40]!r}")
    return _filled(listed, key)


def _filled(lines: list[str], key: str) -> tuple[str, ...]:
    captions = tuple(line.strip() for line in lines if line.strip())
    if not captions:
        raise BadSample(key, "empty caption")
    return captions
