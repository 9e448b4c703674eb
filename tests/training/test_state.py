"""States on disk: whole at every moment, and strict when read."""

import pytest
import torch
from fake_stage import new_stage
from safetensors.torch import load_file

from unclip.errors import CheckpointError
from unclip.storage import folders
from unclip.storage.folders import write_json
from unclip.training import state
from unclip.training.state import (
    RAW,
    Progress,
    check_same_stage,
    latest_state,
    prune_states,
    read_progress,
    read_tensors,
    restore_module,
    save_state,
    trained_names,
)


class Killed(BaseException):
    pass


def _save(run, step):
    save_state(run, Progress(step=step, pending={"loss": 0.1}), {RAW: {"x": torch.ones(3) * step}})
    prune_states(run, keep=1)


def _step_found(run):
    found = latest_state(run)
    progress = read_progress(found)
    assert torch.equal(read_tensors(found / RAW)["x"], torch.ones(3) * progress.step)
    return progress.step


def test_a_kill_at_any_moment_leaves_a_complete_state(tmp_path, monkeypatch):
    """Every call that changes the disk fails once; the old or the new state is found then."""
    changes = [
        (state, "save_file"),
        (state, "flush"),
        (folders, "flush"),
        (folders.os, "replace"),
        (state.Path, "write_text"),
        (state.Path, "mkdir"),
        (state.Path, "rename"),
        (state.shutil, "rmtree"),
    ]
    found, moment = [], 0
    while True:
        run, calls = tmp_path / str(moment), 0
        _save(run, 1)

        def dying(original, moment=moment):
            def call(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == moment + 1:
                    raise Killed
                return original(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for place, name in changes:
                patch.setattr(place, name, dying(getattr(place, name)))
            try:
                _save(run, 2)
                finished = True
            except Killed:
                finished = False
        found.append(_step_found(run))
        _save(run, 3)  # what the kill left behind does not disturb
        assert _step_found(run) == 3
        assert len(list((run / "state").iterdir())) == 1
        if finished:
            break
        moment += 1
    assert found[0] == 1
    assert found[-1] == 2
    assert found == sorted(found)
    assert len(found) > 6


def test_progress_round_trips_exactly(tmp_path):
    progress = Progress(7, 70, 1 / 3, rewarmed_at=5, pending={"loss": 0.1 + 0.2, "count": 2})
    assert read_progress(save_state(tmp_path, progress, {})) == progress


def test_keeps_as_many_states_as_asked(tmp_path):
    for step in (1, 2, 10):
        save_state(tmp_path, Progress(step=step), {})
        prune_states(tmp_path, keep=2)
    assert [path.name for path in sorted((tmp_path / "state").iterdir())] == [
        "step-00000002",
        "step-00000010",
    ]
    assert latest_state(tmp_path).name == "step-00000010"


def test_weights_are_read_strictly(tmp_path):
    stage = new_stage()
    tensors = dict(stage.state_dict())
    tensors["unknown"] = tensors.pop("gain")
    tensors["mean"] = torch.zeros(4)
    folder = save_state(tmp_path, Progress(), {RAW: tensors})
    with pytest.raises(CheckpointError) as caught:
        restore_module(stage, folder / RAW, trained_names(stage))
    for culprit in ("gain is missing", "unknown is unknown", "mean has shape (4,) instead of (3,)"):
        assert culprit in str(caught.value)


def test_damaged_files_are_named(tmp_path):
    folder = save_state(tmp_path, Progress(step=1), {RAW: {"x": torch.ones(1000)}})
    content = (folder / RAW).read_bytes()
    (folder / RAW).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match=r"raw\.safetensors cannot be read"):
        read_tensors(folder / RAW)
    (folder / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"state\.json cannot be read"):
        read_progress(folder)


def test_another_stage_in_the_run_folder_is_refused(tmp_path):
    mine = {"name": "decoder", "config": {"network": {"channels": 64}, "sizes": (1, 2)}}
    write_json(tmp_path / "config.json", {"stage": mine})
    check_same_stage(tmp_path, mine)
    other = {"name": "decoder", "config": {"network": {"channels": 96}, "sizes": (1, 2)}}
    with pytest.raises(CheckpointError, match=r"config\.network\.channels is 64 there, 96 now"):
        check_same_stage(tmp_path, other)


def test_states_hold_views_and_shared_memory(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "whole": whole,
        "again": whole,
        "row": whole[1],
        "turned": whole.T,
        "one": whole[2, 3],
    }
    folder = save_state(tmp_path, Progress(step=1), {"raw.safetensors": tensors})
    found = load_file(folder / "raw.safetensors")
    assert all(torch.equal(found[key], value) for key, value in tensors.items())
