"""Which CLIP a command works with: a model's own, or a CLIP folder by itself."""

from pathlib import Path
from typing import TYPE_CHECKING

from unclip.cli.progress import found

if TYPE_CHECKING:
    from unclip.clip.clip import Clip


def open_clip(model: str, device: str | None = None, precision: str | None = None) -> "Clip":
    """Open the CLIP of a model, or the one a folder holds.

    Raises:
        CheckpointError: there is none.
    """
    from unclip.checkpoint import is_stage, load_stage, read_index
    from unclip.clip.clip import Clip
    from unclip.errors import CheckpointError
    from unclip.runtime import choose_runtime

    folder = found(model)
    if not is_stage(folder):
        name = read_index(folder).clip
        if name is None:
            raise CheckpointError(f"{folder} has no CLIP; name a model or a CLIP folder with one")
        folder /= name
    clip = load_stage(folder, choose_runtime(device, precision))
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{folder} holds a {clip.name}, not a CLIP")
    return clip


def image_paths(given: tuple[Path, ...]) -> list[Path]:
    """Images named one by one, and those below the folders that are named.

    Raises:
        ImageError: there is none.
    """
    from unclip.data.folder import FolderSource
    from unclip.errors import ImageError

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            below = FolderSource(path, with_captions=False)
            found += [path / below.sample(i).key for i in range(len(below))]
        else:
            found.append(path)
    if not found:
        raise ImageError("no image given; name image files, or folders that hold some")
    return found
