"""Checkpoints on the Hugging Face Hub: listed at one commit, fetched file by file into its cache.

Downloads resume, are shared with other programs, and are not repeated. It knows no model.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from unclip.errors import CheckpointError


class Listing(NamedTuple):
    """A repository at a revision."""

    files: tuple[str, ...]
    """Relative names, with ``/``."""
    commit: str
    """What the revision is."""
    contents: Mapping[str, str] | None
    """What each file holds, as git's digest of it. The cache does not tell: it lacks files."""


def list_files(name: str, revision: str | None, *, offline: bool) -> Listing:
    """The files of a repository at a revision.

    Without a network, what the cache holds of it.

    Args:
        name: ``owner/name``.
        revision: branch, tag or commit; its main branch if not given.
        offline: use no network.

    Raises:
        CheckpointError: there is no such repository or revision, or it cannot be reached.
    """
    from huggingface_hub import HfApi

    if _offline(offline):
        cached = _cached(name, revision)
        if cached is None:
            raise CheckpointError(
                f"{name} is not in the Hub's cache, and no network may be used; "
                "fetch it once without --offline and HF_HUB_OFFLINE"
            )
        return cached
    try:
        with _explained(name, revision):
            info = HfApi().model_info(name, revision=revision, files_metadata=True)
    except UnreachableError:
        if (cached := _cached(name, revision)) is not None:
            return cached
        raise
    siblings = info.siblings or ()
    contents = {one.rfilename: one.blob_id for one in siblings if one.blob_id}
    files = tuple(one.rfilename for one in siblings)
    return Listing(files, info.sha or "", contents if len(contents) == len(files) else None)


def fetch(name: str, file: str, commit: str, revision: str | None, *, offline: bool) -> Path:
    """Bring one file here, unless the cache has it.

    Args:
        name: ``owner/name``.
        file: its relative name.
        commit: what ``revision`` is.
        revision: as `list_files` was asked for.
        offline: use no network.

    Raises:
        CheckpointError: it cannot be reached, or there is no room for it.
    """
    from huggingface_hub import hf_hub_download

    with _explained(name, commit, file):
        path = hf_hub_download(name, file, revision=commit, local_files_only=_offline(offline))
        _remember(name, revision, commit)
        return Path(path)


class UnreachableError(CheckpointError):
    """The Hub does not answer."""


def _offline(asked: bool) -> bool:
    from huggingface_hub import constants

    return asked or constants.HF_HUB_OFFLINE


def _cached(name: str, revision: str | None) -> Listing | None:
    """What the cache holds of a repository; its layout is documented by huggingface_hub."""
    folder = _cache(name)
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision
    snapshot = folder / "snapshots" / (commit or "main")
    if not commit or not snapshot.is_dir():
        return None
    files = [path.relative_to(snapshot) for path in snapshot.rglob("*") if path.is_file()]
    return Listing(tuple(sorted(file.as_posix() for file in files)), commit, None)


def _remember(name: str, revision: str | None, commit: str) -> None:
    """Note which commit a branch or tag was: files are fetched by commit, and found without it."""
    reference = _cache(name) / "refs" / (revision or "main")
    if revision != commit and not (reference.is_file() and reference.read_text() == commit):
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(commit)


def _cache(name: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


@contextmanager
def _explained(name: str, revision: str | None, file: str | None = None) -> Iterator[None]:
    """Turn what the Hub's client says into one sentence."""
    import httpx
    from huggingface_hub import errors

    what = f"{file} of {name}" if file else name
    try:
        yield
    except errors.GatedRepoError:
        raise CheckpointError(
            f"{name} wants its terms accepted: do so on its page, then run `hf auth login`"
        ) from None
    except errors.RepositoryNotFoundError:
        raise CheckpointError(
            f"{name} is neither a file or folder here nor a repository on the Hub; "
            "for a private one run `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise CheckpointError(f"{name} has no revision {revision!r} on the Hub") from None
    except errors.RemoteEntryNotFoundError:
        raise CheckpointError(f"{name} has no {file} on the Hub") from None
    except errors.LocalEntryNotFoundError as error:
        if error.__cause__ is None:
            raise CheckpointError(
                f"{what} is not in the Hub's cache, and no network may be used; "
                "fetch it once without --offline and HF_HUB_OFFLINE"
            ) from None
        raise _unreachable(what) from None
    except errors.HfHubHTTPError as error:
        raise CheckpointError(f"the Hub refuses {what}: {str(error).splitlines()[0]}") from None
    except (httpx.HTTPError, ConnectionError, TimeoutError):
        raise _unreachable(what) from None
    except errors.HFValidationError:
        raise CheckpointError(
            f"{name} is neither a file or folder here nor a name the Hub allows"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{what} cannot be stored: {error.strerror or error}") from None
    except RuntimeError as error:  # what the client's transfer of large files raises
        raise CheckpointError(
            f"{what} cannot be fetched: {str(error).splitlines()[0]}; the same command goes on "
            "where it stopped"
        ) from None


def _unreachable(what: str) -> UnreachableError:
    return UnreachableError(
        f"{what} is not here, and the Hub cannot be reached; check the network, "
        "or give a folder that holds the files"
    )
