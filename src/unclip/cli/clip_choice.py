"""Which CLIP a command works with: a model's own, or a CLIP folder by itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unclip.cli.progress import found

if TYPE_CHECKING:
    from unclip.clip.clip import Clip


@Parameter(name="*")
@dataclass(frozen=True)
class Reader:
    """Whose CLIP reads images and texts, and where it computes."""

    model: Annotated[
        str,
        Parameter(
            alias="-m",
            help="A shipped model's name, a model folder, or a folder with a CLIP alone.",
        ),
    ] = "emoji"
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda or mps.")] = None
    precision: Annotated[str | None, Parameter(help="auto, bf16 or fp32.")] = None

    def open(self) -> "Clip":
        """Open the CLIP.

        Raises:
            CheckpointError: there is none.
        """
        from unclip.checkpoint import is_stage, load_stage, read_index
        from unclip.clip.clip import Clip
        from unclip.errors import CheckpointError
        from unclip.runtime import choose_runtime

        folder = found(self.model)
        if not is_stage(folder):
            name = read_index(folder).clip
            if name is None:
                raise CheckpointError(
                    f"{folder} has no CLIP; name a model or a CLIP folder with one"
                )
            folder /= name
        clip = load_stage(folder, choose_runtime(self.device, self.precision))
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
