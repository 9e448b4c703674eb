"""Which CLIP an embedding comes from, and whether stages speak of one: fingerprints of its towers.

A retrained CLIP has the sizes of the old one and other embeddings. What is trained on it therefore
keeps its identity. Knows tensors by name, no network.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unclip.config import Config
from unclip.errors import CheckpointError

TOWERS: tuple[Literal["image", "text"], ...] = ("image", "text")


class ClipIdentity(Config):
    """What is known of the CLIP whose embeddings a stage makes or reads."""

    name: str = ""
    """What it is called, such as ``OpenAI ViT-L/14``: tells a published CLIP without weights."""
    image: str | None = None
    """Fingerprint of the image tower."""
    text: str | None = None
    """Fingerprint of the text tower."""
    normalised: bool = True
    """Whether its embeddings are brought to unit length."""

    def __str__(self) -> str:
        towers = [f"{tower} {value}" for tower in TOWERS if (value := getattr(self, tower))]
        return f"{self.name} ({', '.join(towers)})" if self.name else ", ".join(towers)

    def conflict(self, other: "ClipIdentity | None") -> str | None:
        """Say what tells the two apart, mine before the other's; None if they agree.

        Towers both know decide, and only where there is none, names. What one of them does not
        know is no conflict.
        """
        if other is None:
            return None
        if self.normalised != other.normalised:
            words = {True: "of unit length", False: "not normalised"}
            return f"{words[self.normalised]}, {words[other.normalised]}"
        compared = False
        for tower in TOWERS:
            mine, theirs = getattr(self, tower), getattr(other, tower)
            if mine and theirs:
                compared = True
                if mine != theirs:
                    return f"{tower} tower {self._called(mine)}, {other._called(theirs)}"
        if not compared and self.name and other.name and self.name != other.name:
            return f"{self.name}, {other.name}"
        return None

    def completed(self, other: "ClipIdentity | None") -> "ClipIdentity":
        """What this one knows of a CLIP, and where it knows nothing, what the other does."""
        unknown = [name for name in ("name", *TOWERS) if not getattr(self, name)]
        return self.model_copy(update={name: getattr(other, name) for name in unknown if other})

    def _called(self, value: str) -> str:
        return f"{value} of {self.name}" if self.name else value


class Space(NamedTuple):
    """Where a stage's embeddings lie."""

    size: int
    """Numbers of an embedding."""
    clip: ClipIdentity | None
    """Whose they are, as far as that is known."""


def check_one_space(where: str, clip: Space | None, readers: Mapping[str, Space]) -> None:
    """Stages of one model must speak of embeddings of one size and of one CLIP.

    Args:
        where: the model, for errors.
        clip: its CLIP, if it is there.
        readers: what is trained on embeddings, by name: prior and decoder.

    Raises:
        CheckpointError: naming those that differ, and how.
    """
    if clip is not None:
        for name, space in readers.items():
            if space.size != clip.size:
                raise CheckpointError(
                    f"{where}: the {name} was trained on embeddings of size {space.size}, its CLIP "
                    f"makes {clip.size}; train the {name} on this CLIP"
                )
            if space.clip and (conflict := space.clip.conflict(clip.clip)):
                raise CheckpointError(
                    f"{where}: the {name} was trained on another CLIP than lies here ({conflict}); "
                    f"train the {name} on this CLIP, or put back the one it was trained on"
                )
    # Two may know more of their CLIP than a folder without its image tower does.
    for (one, mine), (other, theirs) in combinations(readers.items(), 2):
        conflict = mine.clip.conflict(theirs.clip) if mine.clip else None
        if mine.size != theirs.size:
            conflict = f"embeddings of size {mine.size}, {theirs.size}"
        if conflict:
            raise CheckpointError(
                f"{where}: {one} and {other} were trained on different CLIPs ({conflict}); "
                "choose two of one CLIP, or train one of them on the other's"
            )


def identify(
    tensors: Iterable[tuple[str, Tensor]], *, name: str = "", normalised: bool = True
) -> ClipIdentity:
    """Fingerprint the towers of a CLIP from its weights, one tensor at a time, in any order.

    Only the signs of matrices count. Rounding never changes a sign, so that the same weights have
    one fingerprint in float32, float16 and bfloat16; any training changes some.

    Args:
        tensors: names, as in a checkpoint of `Clip` (``network.image.…``, ``network.text.…``),
            and weights. Others are ignored.
        name: see `ClipIdentity`.
        normalised: see `ClipIdentity`.
    """
    found: dict[str, dict[str, bytes]] = {tower: {} for tower in TOWERS}
    for key, tensor in tensors:
        for tower in TOWERS:
            if _counts(tensor) and key.startswith(f"network.{tower}."):
                found[tower][key] = _signs(key, tensor)
    fingerprints = {tower: _joined(parts) for tower, parts in found.items() if parts}
    return ClipIdentity(name=name, normalised=normalised, **fingerprints)


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Twelve hexadecimal digits that tell weights apart as `identify` does, of any module."""
    return _joined({key: _signs(key, tensor) for key, tensor in tensors if _counts(tensor)})


def _counts(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim >= 2


def _signs(key: str, tensor: Tensor) -> bytes:
    digest = hashlib.blake2b(f"{key} {tuple(tensor.shape)}".encode(), digest_size=16)
    signs = torch.signbit(tensor.detach()).cpu().contiguous().numpy()
    digest.update(np.packbits(signs).tobytes())
    return digest.digest()


def _joined(parts: dict[str, bytes]) -> str:
    digest = hashlib.blake2b(digest_size=6)
    for _, part in sorted(parts.items()):
        digest.update(part)
    return digest.hexdigest()
