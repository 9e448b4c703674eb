"""Where a foreign checkpoint comes from: a file, a folder or the Hub, fetched file by file."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from unclip.errors import CheckpointError
from unclip.weights.tensors import Tensors, open_tensors

SUFFIXES = ("safetensors", "bin", "pt", "pth", "th", "ckpt")
"""Endings of weight files, the preferred first."""
STEMS = (
    "diffusion_pytorch_model",
    "model",
    "pytorch_model",
    "open_clip_model",
    "open_clip_pytorch_model",
)
"""Names that libraries give their weight files; a folder may hold other files of such endings."""

_WEIGHTS = re.compile(
    r"(?P<stem>.+?)(?P<variant>\.(?:fp16|bf16|fp32|non_ema))?"
    r"(?P<shard>-\d{5}-of-\d{5})?(?P<late>\.(?:fp16|bf16|fp32|non_ema))?"
    rf"\.(?P<suffix>{'|'.join(SUFFIXES)})(?P<index>\.index(?:\.(?P<last>\w+))?\.json)?"
)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass
class Source:
    """A foreign checkpoint: its files by relative name, each brought here when asked for."""

    name: str
    """As the user wrote it."""
    files: tuple[str, ...]
    """Relative names, with ``/``."""
    fetch: Callable[[str], Path]
    """Brings one of ``files`` to this machine."""
    origin: str = ""
    """For the card: a Hub name or a file or folder name."""
    revision: str = ""
    """The commit on the Hub; empty for local files."""

    def path(self, name: str) -> Path:
        """A file of the source on this machine, downloaded if need be.

        Raises:
            CheckpointError: it has no such file, or it cannot be fetched.
        """
        if name not in self.files:
            raise CheckpointError(f"{self.name} has no {name}; it is incomplete")
        return self.fetch(name)

    def has(self, *names: str) -> bool:
        """Whether all these files are there."""
        return all(name in self.files for name in names)

    def json(self, name: str) -> dict[str, Any]:
        """The object in a JSON file.

        Raises:
            CheckpointError: there is no such file, or it holds something else.
        """
        path = self.path(name)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise CheckpointError(f"{path} holds no JSON object")
        return values

    def weights(self, folder: str = "") -> list[str]:
        """The files of one set of weights in a subfolder: one file, or all shards of it.

        Of several sets safetensors win over pickles, full precision over a variant such as
        ``fp16``. Empty if there are none.

        Raises:
            CheckpointError: a shard is missing.
        """
        raise NotImplementedError

    def tensors(self, folder: str = "") -> Tensors:
        """The weights in a subfolder, or at the top; what is read once is kept open.

        Raises:
            CheckpointError: there are none, a shard is missing or a file is damaged.
        """
        raise NotImplementedError

    @cached_property
    def licence(self) -> str:
        """As the model card (README.md) names it; empty if it does not."""
        raise NotImplementedError


def open_source(name: str, revision: str | None = None, *, offline: bool = False) -> Source:
    """Find a checkpoint by the path of a file or folder, or by its name on the Hub.

    Args:
        name: a path, or ``owner/name``.
        revision: branch, tag or commit on the Hub; its main branch if not given.
        offline: use what the Hub's cache holds and no network; so does ``HF_HUB_OFFLINE=1``.

    Raises:
        CheckpointError: there is nothing of that name, or it cannot be reached.
    """
    raise NotImplementedError


def folder_of(file: str) -> str:
    """The subfolder a file of a source lies in; empty at the top."""
    parent = str(PurePosixPath(file).parent)
    return "" if parent == "." else parent


__all__ = ["SUFFIXES", "Source", "folder_of", "open_source", "open_tensors"]
