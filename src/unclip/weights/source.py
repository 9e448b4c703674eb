"""Where a foreign checkpoint comes from: a file, a folder or the Hub, fetched file by file."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from unclip.errors import CheckpointError
from unclip.weights import hub
from unclip.weights.tensors import Tensors, open_tensors

SUFFIXES = ("safetensors", "bin", "pt", "pth", "th", "ckpt")
"""Endings of weight files, the preferred first."""
STEMS = (
    "open_clip_model",
    "open_clip_pytorch_model",
    "diffusion_pytorch_model",
    "model",
    "pytorch_model",
)
"""Names that libraries give their weight files, the preferred first; a folder may hold other files
of such endings. Beside a whole CLIP of open_clip may lie its image tower alone, for timm."""

_VARIANT = r"\.(?:fp16|fp32|bf16|non_ema)"
_WEIGHTS = re.compile(
    rf"(?P<stem>.+?)(?P<early>{_VARIANT})?(?:-(?P<shard>\d{{5}})-of-(?P<shards>\d{{5}}))?"
    rf"(?P<late>{_VARIANT})?\.(?P<suffix>{'|'.join(SUFFIXES)})"
)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass
class Source:
    """A foreign checkpoint: its files by relative name, each brought here when asked for."""

    name: str
    """As the user wrote it: what errors say."""
    files: tuple[str, ...]
    """Relative names, with ``/``."""
    fetch: Callable[[str], Path]
    """Brings one of ``files`` to this machine."""
    origin: str
    """For the card: a name on the Hub, or of a file or folder."""
    revision: str = ""
    """The commit on the Hub; empty for local files."""
    contents: Mapping[str, str] | None = None
    """What each file on the Hub holds, as a digest; None where that is not known."""
    offline: bool = False
    """Whether no network may be used."""
    _open: dict[str, Tensors] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """A file of the source on this machine, downloaded if need be.

        Raises:
            CheckpointError: it has no such file, or it cannot be fetched.
        """
        if name not in self.files:
            raise CheckpointError(f"{self.name} is incomplete: it has no {name}")
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

    def weights(self, folder: str = "") -> tuple[str, ...]:
        """The files of one set of weights in a subfolder: one file, or all shards of it.

        Of several sets, safetensors win over pickles and full precision over a variant such as
        ``fp16``. Files of unknown names count where the folder has a single one. Empty if there
        are none.

        Raises:
            CheckpointError: a shard is missing.
        """
        here = [file for file in self.files if folder_of(file) == folder]
        sets: dict[tuple[bool, int, int, int, str], dict[str, re.Match[str]]] = {}
        for file in here:
            if match := _WEIGHTS.fullmatch(PurePosixPath(file).name):
                stem, variant = match["stem"], match["early"] or match["late"] or ""
                rank = STEMS.index(stem) if stem in STEMS else len(STEMS)
                key = (
                    rank == len(STEMS),
                    SUFFIXES.index(match["suffix"]),
                    len(variant),
                    rank,
                    stem,
                )
                sets.setdefault(key, {})[file] = match
        named = {key: files for key, files in sets.items() if not key[0]}
        if not named and len(sets) != 1:
            return ()
        _, chosen = min((named or sets).items())
        single = [file for file, match in chosen.items() if not match["shard"]]
        if single:
            return (single[0],)
        wanted = {
            file.replace(f"-{match['shard']}-of-", f"-{i:05}-of-")
            for file, match in chosen.items()
            for i in range(1, int(match["shards"]) + 1)
        }
        self._check_shards(wanted)
        return tuple(sorted(wanted))

    def tensors(self, *files: str, folder: str = "") -> Tensors:
        """Weights: of these files, or else of the set of weights in a subfolder.

        Raises:
            CheckpointError: there are none, a shard is missing or a file is damaged.
        """
        chosen = files or self.weights(folder)
        if not chosen:
            where = f"{self.name}/{folder}" if folder else self.name
            raise CheckpointError(f"{where} holds no weights, or several that are not told apart")
        key = "\n".join(chosen)
        if key not in self._open:
            self._open[key] = open_tensors([self.path(file) for file in chosen])
        return self._open[key]

    @property
    def licence(self) -> str:
        """As the head of the model card (README.md) names it; empty if it does not."""
        if "README.md" not in self.files:
            return ""
        text = self.path("README.md").read_text(encoding="utf-8", errors="replace")
        head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
        found = (
            dict(re.findall(r"^(license(?:_name)?):[ \t]*[\"']?([^\"'\n]+)", head[1], re.M))
            if head
            else {}
        )
        return (found.get("license_name") or found.get("license") or "").strip()

    def _check_shards(self, wanted: Iterable[str]) -> None:
        for file in sorted(wanted):
            if file not in self.files:
                raise CheckpointError(f"{self.name} is incomplete: shard {file} is missing")


def open_source(name: str, revision: str | None = None, *, offline: bool = False) -> Source:
    """Find a checkpoint by the path of a file or folder, or by its name on the Hub.

    Args:
        name: a path, or ``owner/name``.
        revision: branch, tag or commit on the Hub; its main branch if not given.
        offline: use what the Hub's cache holds and no network; so does ``HF_HUB_OFFLINE=1``.

    Raises:
        CheckpointError: there is nothing of that name, or it cannot be reached.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision:
            raise CheckpointError(f"{name} is a local path, which has no revision {revision!r}")
        return _local(name, path, offline)
    if not looks_like_hub(name):
        raise CheckpointError(f"{name} does not exist; give a file, a folder or owner/name")
    files, commit, contents = hub.list_files(name, revision, offline=offline)

    def fetch(file: str) -> Path:
        return hub.fetch(name, file, commit, revision, offline=offline)

    return Source(name, files, fetch, name, commit, contents, offline)


@contextmanager
def reading(where: str) -> Iterator[str]:
    """Lend the name of a config that is read, and turn what it lacks into an error that names it.

    Raises:
        CheckpointError: a field is missing, or holds something of another form.
    """
    try:
        yield where
    except (KeyError, TypeError, IndexError) as error:
        raise CheckpointError(f"{where} is not what it should be: {error}") from None


def looks_like_hub(name: str) -> bool:
    """Whether a name has the form of one on the Hub: ``owner/name``."""
    return _HUB.fullmatch(name) is not None


def folder_of(file: str) -> str:
    """The subfolder a file of a source lies in; empty at the top."""
    parent = PurePosixPath(file).parent.as_posix()
    return "" if parent == "." else parent


def _local(name: str, path: Path, offline: bool) -> Source:
    if path.is_dir():
        root, files = (
            path,
            tuple(
                sorted(
                    file.relative_to(path).as_posix()
                    for file in path.rglob("*")
                    if file.is_file()
                    and not any(p.startswith(".") for p in file.relative_to(path).parts)
                )
            ),
        )
    elif path.name.endswith(".index.json"):
        root, files = path.parent, _named_by(path)
    else:
        root, files = path.parent, (path.name,)
    return Source(name, files, root.joinpath, origin=path.resolve().name, offline=offline)


def _named_by(index: Path) -> tuple[str, ...]:
    """The shards an index names, as far as they are there."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError):
        raise CheckpointError(f"{index} is no index of shards") from None
    return tuple(sorted(name for name in names if (index.parent / name).is_file()))
