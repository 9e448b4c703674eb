"""Images in folders named after their labels, as features for a linear probe (§5.3)."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.clip.clip import Clip
from unclip.data.folder import FolderSource
from unclip.data.source import BadSample
from unclip.data.transforms import SquareResize
from unclip.errors import DataError, OptionError
from unclip.randomness import derive_seed
from unclip.types import Step

_BATCH = 32
_SHARES = {2: (0.8, 0.2), 3: (0.6, 0.2, 0.2)}


@dataclass(frozen=True)
class Labelled:
    """Features with the number of each row's label."""

    features: Float[Tensor, "n features"]
    labels: Int[Tensor, " n"]
    names: tuple[str, ...]
    """Of the images, below the folder."""

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Features and labels."""
        return self.features, self.labels

    def take(self, index: Sequence[int]) -> "Labelled":
        """Some of the rows."""
        rows = torch.tensor(list(index), dtype=torch.int64)
        names = tuple(self.names[i] for i in index)
        return Labelled(self.features[rows], self.labels[rows], names)


def labels_of(folder: Path) -> list[str]:
    """Names of the subfolders, which are the labels.

    Raises:
        DataError: there are less than two.
    """
    names = sorted(p.name for p in folder.glob("*/") if not p.name.startswith("."))
    if len(names) < 2:
        raise DataError(f"{folder}: needs a subfolder of images for each of two labels or more")
    return names


def embed_labelled(
    clip: Clip, folder: Path, labels: Sequence[str]
) -> Generator[Step, None, Labelled]:
    """Image features before CLIP's projection, of every image that can be read.

    Raises:
        DataError: a label has no readable image.
        OptionError: the CLIP embeds no images.
    """
    if clip.config.image is None:
        raise OptionError("this CLIP has no image tower to probe")
    fit = SquareResize(size=clip.config.image.size)
    features: list[Tensor] = []
    numbers: list[int] = []
    names: list[str] = []
    for number, label in enumerate(labels):
        before = len(names)
        for keys, images in _batches(FolderSource(folder / label, with_captions=False), fit):
            features.append(clip.image_features(images).cpu())
            names += [f"{label}/{key}" for key in keys]
        if len(names) == before:
            raise DataError(f"{folder / label}: holds no image that can be read")
        numbers += [number] * (len(names) - before)
        yield Step("labels", number, len(labels), features[-1], features[-1])
    return Labelled(torch.cat(features), torch.tensor(numbers), tuple(names))


def _batches(source: FolderSource, fit: SquareResize) -> Iterator[tuple[list[str], Tensor]]:
    keys: list[str] = []
    images: list[Tensor] = []
    for i in range(len(source)):
        sample = source.sample(i)
        try:
            images.append(fit(sample.image(), 0, sample.key))
        except BadSample:
            continue
        keys.append(sample.key)
        if len(images) == _BATCH:
            yield keys, torch.stack(images)
            keys, images = [], []
    if images:
        yield keys, torch.stack(images)


def split(rows: Labelled, parts: int) -> list[Labelled]:
    """Split every label's images by a hash of their names: 80/20, or 60/20/20.

    Raises:
        DataError: a label has too few images to be in every part.
    """
    shares = _SHARES[parts]
    chosen: list[list[int]] = [[] for _ in shares]
    for label in rows.labels.unique().tolist():
        own = [i for i, other in enumerate(rows.labels.tolist()) if other == label]
        if len(own) < parts:
            which = rows.names[own[0]].partition("/")[0]
            raise DataError(f"label {which} has {len(own)} images, {parts} are needed")
        own.sort(key=lambda i: derive_seed("probe", rows.names[i]))
        others = [max(1, round(share * len(own))) for share in shares[1:]]
        bounds = [0]
        for size in [len(own) - sum(others), *others]:
            bounds.append(bounds[-1] + size)
        for part, low, high in zip(chosen, bounds[:-1], bounds[1:], strict=True):
            part += own[low:high]
    return [rows.take(sorted(index)) for index in chosen]
