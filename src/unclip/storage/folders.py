"""Folders that are written whole or not at all, also through a kill or a power cut."""

import errno
import glob
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from unclip.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

_OLD, _LOCK = "-old", ".lock"


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder`` that takes its place when the block succeeds.

    All of it is on the disk before it takes the place. A kill leaves the old folder or the new
    one; between the two renames neither is there, and `recover` puts the old one back. What a kill
    leaves half written is removed when the same folder is next replaced.

    Raises:
        CheckpointError: it cannot be written (no space, no permission).
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        recover(folder)
        _remove_unfinished(folder)
        with _beside(folder) as beside:
            usual = stat.S_IMODE(beside.stat().st_mode)
            beside.chmod(0o700)
            yield beside
            beside.chmod(usual)
            for path in sorted(beside.rglob("*"), reverse=True):
                # safetensors writes files that nobody else may read, whatever the user's mask.
                path.chmod(usual if path.is_dir() else usual & 0o666)
                flush(path)
            flush(beside)
            old = beside.with_name(beside.name + _OLD)
            if folder.exists():
                os.replace(folder, old)
            os.replace(beside, folder)
            flush(folder.parent)
            for left in (old, *_left(folder, _OLD)):
                shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new folder for this process, under a lock that ends with the process, however that ends."""
    descriptor, name = tempfile.mkstemp(_LOCK, f".{folder.name}-", folder.parent)
    beside = Path(name.removesuffix(_LOCK))
    try:
        # Waits where another process has just found the lock free: it shall be done looking.
        _locked(descriptor, wait=True)
        beside.mkdir()
        yield beside
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        os.close(descriptor)
        Path(name).unlink(missing_ok=True)


def _remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of this folder: theirs is what a lock names, unlocked."""
    for lock in _left(folder, _LOCK):
        # Another process may remove it meanwhile.
        with suppress(OSError):
            descriptor = os.open(lock, os.O_RDWR)
            try:
                if _locked(descriptor):
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink()
            finally:
                os.close(descriptor)


def _locked(descriptor: int, *, wait: bool = False) -> bool:
    """Lock a file until it is closed; False if another process has, or files cannot be locked."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def recover(folder: Path) -> None:
    """Put a folder back that a kill left moved aside; nothing happens if it is in its place."""
    if folder.exists():
        return
    for old in _left(folder, _OLD)[-1:]:
        # Another process may have done so meanwhile.
        with suppress(OSError):
            os.rename(old, folder)


def _left(folder: Path, ending: str) -> list[Path]:
    """What earlier replacements did not delete, the oldest first."""
    # The name of a temporary folder ends in eight characters; those of model-2 are not model's.
    pattern = f".{glob.escape(folder.name)}-{'?' * 8}{ending}"
    times = {}
    for path in folder.parent.glob(pattern):
        with suppress(OSError):  # another process may delete it meanwhile
            times[path] = path.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders; NTFS keeps a journal of renames
    # Windows flushes only what was opened for writing, POSIX opens no folder for it.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system says against writing into ``folder`` into a `CheckpointError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} cannot be written: {_reason(error)}") from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write an object, readable: beside, then renamed, so that a kill leaves the old or the new."""
    beside = path.with_name(path.name + ".partial")
    text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
    beside.write_text(text, encoding="utf-8")
    flush(beside)
    os.replace(beside, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read an object.

    Raises:
        CheckpointError: the file is missing, cannot be read or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; is this an unclip model folder?") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from None
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is damaged: line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} is damaged: it does not hold an object")
    return values


def _reason(error: Exception) -> str:
    # safetensors tells its system errors in words only.
    if getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error):
        return "no space left on the disk"
    return getattr(error, "strerror", None) or str(error)
