"""Pictures one after the other: GIF by Pillow, MP4 by the ffmpeg of imageio's wheel."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unclip.errors import OptionError
from unclip.images import check_new, write_new

ENDINGS = (".gif", ".mp4")


def check_animation(path: Path) -> None:
    """Find out before anything is drawn whether an animation can be written.

    Raises:
        OptionError: another ending than .gif or .mp4, or nothing to write MP4 with.
        ImageError: the file exists.
    """
    if path.suffix.lower() not in ENDINGS:
        raise OptionError(f"{path}: an animation is NAME.gif or NAME.mp4")
    check_new(path)
    if path.suffix.lower() == ".mp4":
        _writer()


def save_animation(path: Path, frames: Sequence[Image.Image], fps: float) -> None:
    """Write a GIF that repeats, or an MP4 (H.264). Never overwrites.

    Raises:
        OptionError, ImageError: as `check_animation`, or it cannot be written.
    """
    check_animation(path)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"animation{path.suffix.lower()}"
        if file.suffix == ".gif":
            first, *others = frames
            first.save(
                file, save_all=True, append_images=others, duration=round(1000 / fps), loop=0
            )
        else:
            _save_mp4(file, frames, fps)
        write_new(path, file.read_bytes())


def _save_mp4(file: Path, frames: Sequence[Image.Image], fps: float) -> None:
    write = _writer()
    width, height = frames[0].size
    # The usual players want even sides: the last row or column is shown twice.
    even = ((0, height % 2), (0, width % 2), (0, 0))
    size = (width + width % 2, height + height % 2)
    video = write(str(file), size, fps=fps, quality=9, macro_block_size=1)
    video.send(None)
    for frame in frames:
        video.send(np.ascontiguousarray(np.pad(np.asarray(frame), even, mode="edge")))
    video.close()


def _writer() -> Callable[..., Any]:
    try:
        from imageio_ffmpeg import write_frames
    except ImportError:
        raise OptionError(
            "MP4 needs imageio-ffmpeg: pip install 'unclip[video]', or write a GIF"
        ) from None
    return write_frames
