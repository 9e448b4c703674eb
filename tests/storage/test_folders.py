"""Folders replaced whole, killed at any moment."""

import os
import signal
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unclip.errors import CheckpointError
from unclip.storage import folders
from unclip.storage.folders import recover, replacing


def write(folder: Path, text: str) -> None:
    with replacing(folder) as beside:
        (beside / "inner").mkdir()
        (beside / "inner" / "file").write_text(text)


def fail_to_write(folder: Path) -> None:
    with pytest.raises(TypeError), replacing(folder) as beside:
        (beside / "half").write_text(None)


def text_of(folder: Path) -> str:
    return (folder / "inner" / "file").read_text()


def test_a_folder_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    for text in ("old", "new"):
        write(folder, text)
        assert text_of(folder) == text
    assert os.listdir(folder.parent) == ["model"]


def test_an_error_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write(folder, "old")
    fail_to_write(folder)
    assert text_of(folder) == "old"
    assert os.listdir(tmp_path) == ["model"]


def killed_before(call: int, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the folder in a process of its own that dies before the given call."""
    child = os.fork()
    if child == 0:
        plain, calls = getattr(folders.os, name), iter(range(100))

        def deadly(*arguments: object) -> None:
            if next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            plain(*arguments)

        monkeypatch.setattr(folders.os, name, deadly)
        write(folder, "new")
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("call", [0, 1])
def test_a_kill_at_either_rename_leaves_a_whole_folder(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write(folder, "old")
    killed_before(call, "replace", folder, monkeypatch)
    assert folder.exists() == (call == 0), "the second call is the gap between the renames"
    recover(folder)
    assert text_of(folder) == "old"
    write(folder, "newer")
    assert text_of(folder) == "newer"
    assert os.listdir(tmp_path) == ["model"], "nothing of the killed process is left"


def test_writing_again_after_a_kill_needs_no_recovery_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    write(folder, "old")
    killed_before(1, "replace", folder, monkeypatch)
    fail_to_write(folder)
    assert text_of(folder) == "old"


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing(folder) as beside:
        (beside / "file").write_text("slow")
        write(folder, "quick")
        assert text_of(folder) == "quick"
        assert (beside / "file").exists()
    assert (folder / "file").read_text() == "slow"
    assert os.listdir(tmp_path) == ["model"]


def test_hidden_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    names = [".model-2-abcdefgh", ".model-2-abcdefgh.lock", ".model-mybackup"]
    for name in names:
        (tmp_path / name).mkdir()
    write(tmp_path / "model", "new")
    assert sorted(os.listdir(tmp_path)) == [*names, "model"]


def test_recovery_touches_no_other_folder(tmp_path: Path) -> None:
    names = [".model-2-abcdefgh-old", ".other-abcdefgh-old"]
    for name in names:
        (tmp_path / name).mkdir()
    recover(tmp_path / "model")
    assert sorted(os.listdir(tmp_path)) == names
    recover(tmp_path / "model-2")
    assert sorted(os.listdir(tmp_path)) == [".other-abcdefgh-old", "model-2"]


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write(tmp_path / "file" / "model", "new")


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_may_be_read_by_whom_the_user_lets_read(tmp_path, mask):
    before = os.umask(mask)
    try:
        with replacing(tmp_path / "model") as beside:
            (beside / "inner").mkdir()
            save_file({"x": torch.zeros(1)}, beside / "inner" / "weights.safetensors")
    finally:
        os.umask(before)
    for path in (tmp_path / "model").rglob("*"):
        wanted = (0o777 if path.is_dir() else 0o666) & ~mask
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o777 & ~mask
