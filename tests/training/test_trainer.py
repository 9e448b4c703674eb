"""The loop against a hand-written one, and everything around it, on a stage of ten lines."""

import json
import os
import signal

import pytest
import torch
from fake_stage import FakeConfig, FakeLoader, FakeStage, fake_config, new_stage
from PIL import Image
from safetensors.torch import load_file

from unclip.errors import CheckpointError, OptionError, TrainingError
from unclip.randomness import Randomness, derive_seed
from unclip.training.config import TrainingConfig
from unclip.training.log import read_log
from unclip.training.objectives import own_loss, unwrapped
from unclip.training.state import latest_state, read_progress
from unclip.training.trainer import train


def run_training(run, stage=None, loader=None, options=None, **changes):
    stage = stage or new_stage()
    config = fake_config(**changes)
    report = train(
        stage, loader or FakeLoader(config.batch), config, run, device="cpu", **(options or {})
    )
    return stage, report


def same(first, second):
    return all(
        torch.equal(mine, theirs)
        for mine, theirs in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
    )


def losses(run):
    return [line["losses"] for line in read_log(run / "log.jsonl")]


def test_equals_a_loop_written_by_hand(tmp_path):
    config = fake_config(weight_decay=0.1, steps=8, ema_half_life=40)
    mine, report = run_training(tmp_path, weight_decay=0.1, steps=8, ema_half_life=40)

    theirs, average, seen = new_stage(), new_stage(), 0
    matrices = [theirs.network[0].weight, theirs.network[4].weight]
    others = [p for p in theirs.parameters() if all(p is not m for m in matrices)]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    )
    theirs.to(memory_format=torch.channels_last)
    history = []
    for step, batch in zip(range(8), FakeLoader(16).batches(0), strict=False):
        torch.manual_seed(derive_seed(config.seed, "dropout", step, 0))
        loss = theirs(batch, Randomness.for_step(config.seed, step, 0, 16))["loss"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, (step + 1) / 3)
        optimizer.step()
        optimizer.zero_grad()
        theirs.after_step()
        history.append(loss.item())
        seen += 16
        decay = 0.5 ** (16 / min(40, 0.05 * seen))
        with torch.no_grad():
            for a, b in zip(average.parameters(), theirs.parameters(), strict=True):
                a.mul_(decay).add_(b, alpha=1 - decay)

    assert [line["loss"] for line in losses(tmp_path)] == pytest.approx(history, rel=1e-6)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    exported = load_file(report.folder / "weights.safetensors")
    for name, value in average.state_dict().items():
        torch.testing.assert_close(exported[name], value, rtol=1e-5, atol=1e-6)
    assert mine.gain.item() <= 1.05 + 1e-6
    assert history[-1] < 0.7 * history[0]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_weights_equal_uninterrupted_ones_bit_for_bit(tmp_path, precision):
    straight, _ = run_training(tmp_path / "straight", precision=precision, log_every=3)
    for steps in (5, 2):  # neither at a multiple of save_every nor of log_every
        _, report = run_training(
            tmp_path / "parts", options={"max_steps": steps}, precision=precision, log_every=3
        )
    assert (report.ending, report.step, report.images) == ("done", 7, 112)
    resumed, report = run_training(tmp_path / "parts", precision=precision, log_every=3)
    assert report.step == 12
    assert same(resumed, straight)
    straight_state, resumed_state = (latest_state(tmp_path / run) for run in ("straight", "parts"))
    for file in ("raw", "ema", "optimizer"):
        name = f"{file}.safetensors"
        mine, theirs = load_file(straight_state / name), load_file(resumed_state / name)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert losses(tmp_path / "parts") == losses(tmp_path / "straight")


def test_accumulated_parts_give_the_same_gradient(tmp_path):
    first, second = (FakeStage(FakeConfig(dropout=0.0)) for _ in range(2))
    second.load_state_dict(first.state_dict())  # the noise is the same, dropout's would not be
    run_training(tmp_path / "whole", first)
    run_training(tmp_path / "parts", second, accumulate=2)
    for mine, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert losses(tmp_path / "parts")[0]["loss"] == pytest.approx(
        losses(tmp_path / "whole")[0]["loss"], rel=1e-6
    )


def test_nonfinite_loss_names_step_and_samples_and_keeps_the_checkpoint(tmp_path):
    stage = new_stage()
    with pytest.raises(TrainingError, match=r"step 7: loss nan.* batch6/0, .* and 12 more"):
        run_training(tmp_path, stage, FakeLoader(16, bad_step=6))
    assert all(parameter.isfinite().all() for parameter in stage.parameters())
    assert read_progress(latest_state(tmp_path)).step == 4
    details = json.loads((tmp_path / "not-finite.json").read_text())
    assert details["step"] == 7
    assert details["keys"] == [f"batch6/{i}" for i in range(16)]
    resumed, _ = run_training(tmp_path)
    straight, _ = run_training(tmp_path / "straight")
    assert same(resumed, straight)
    assert [line["step"] for line in read_log(tmp_path / "log.jsonl")] == list(range(1, 13))


def test_a_finite_loss_with_an_infinite_gradient_spoils_nothing(tmp_path):
    def steep(stage, batch, randomness):
        losses = own_loss(stage, batch, randomness)
        if batch.keys[0] == "batch6/0":
            gain = unwrapped(stage).gain
            # sqrt is finite at 0, its slope is not.
            losses["loss"] = losses["loss"] + (gain - gain.detach()).sqrt()
        return losses

    stage = new_stage()
    with pytest.raises(TrainingError, match=r"step 7: gradient_norm (nan|inf)"):
        run_training(tmp_path, stage, options={"objective": steep}, save_every=1)
    assert all(parameter.isfinite().all() for parameter in stage.parameters())
    assert read_progress(latest_state(tmp_path)).step == 6


def test_nonfinite_part_of_a_batch_is_named_alone(tmp_path):
    with pytest.raises(TrainingError, match=r"batch2/0, batch2/1, batch2/2, batch2/3; "):
        run_training(tmp_path, loader=FakeLoader(16, bad_step=2), accumulate=4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_ends_cleanly(tmp_path, number):
    class Signalling(FakeLoader):
        def batches(self, start):
            for k, batch in enumerate(super().batches(start), start):
                if k == 5:
                    os.kill(os.getpid(), number)
                yield batch

    before = signal.getsignal(number)
    _, report = run_training(tmp_path, loader=Signalling(16))
    assert (report.ending, report.step) == ("signal", 6)
    assert read_progress(latest_state(tmp_path)).step == 6
    assert signal.getsignal(number) is before
    resumed, _ = run_training(tmp_path)
    straight, _ = run_training(tmp_path / "straight")
    assert same(resumed, straight)


def test_spent_time_saves_and_ends(tmp_path):
    _, report = run_training(tmp_path, options={"max_minutes": 0.0})
    assert (report.ending, report.step) == ("time", 1)
    assert read_progress(latest_state(tmp_path)).step == 1


def test_missing_optimizer_state_warms_up_again(tmp_path, capsys):
    run_training(tmp_path, steps=4)
    (latest_state(tmp_path) / "optimizer.safetensors").unlink()
    run_training(tmp_path, steps=8, rewarm=3)
    assert "state is missing, warming up again" in capsys.readouterr().err
    rates = [line["lr"] for line in read_log(tmp_path / "log.jsonl")]
    assert rates[3:] == pytest.approx([1e-2, 2.5e-3, 5e-3, 7.5e-3, 1e-2])


def test_previews_are_drawn_with_averaged_weights(tmp_path):
    drawn = []

    def preview(stage):
        drawn.append(stage)
        assert not stage.training
        return Image.new("RGB", (4, 4), "red")

    stage, _ = run_training(tmp_path, options={"preview": preview}, preview_every=5)
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == [
        "000005.png",
        "000010.png",
    ]
    assert drawn[0] is not stage
    assert not torch.equal(drawn[0].network[0].weight, stage.network[0].weight)


def test_previews_can_be_left_out_logs_and_checkpoints_cannot(tmp_path):
    drawn = []
    run_training(tmp_path, options={"preview": drawn.append}, preview_every=0)
    assert not drawn
    for field in ("log_every", "save_every"):
        with pytest.raises(OptionError, match=rf"--set {field}: {field}: .*greater than 0"):
            TrainingConfig(steps=1, batch=1, lr=1).override({field: "0"})
    assert TrainingConfig(steps=1, batch=1, lr=1).override({"preview_every": "0"})
    with pytest.raises(OptionError, match=r"preview_every: .*greater than or equal to 0"):
        TrainingConfig(steps=1, batch=1, lr=1).override({"preview_every": "-1"})


def test_tracker_gets_losses_and_previews(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"tracker": "tensorboard", "preview": lambda stage: Image.new("RGB", (4, 4))}
    run_training(tmp_path, options=options, preview_every=5)
    events = EventAccumulator(str(tmp_path / "fake-tensorboard")).Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([line["loss"] for line in losses(tmp_path)])
    assert [event.step for event in events.Images("samples")] == [5, 10]


def test_conditioner_and_objective_take_part(tmp_path):
    def darker(batch):
        return type(batch)(keys=batch.keys, images=batch.images * 0)

    def blank(stage, batch, randomness):
        assert not batch.images.any()
        return {key: 2 * value for key, value in stage(batch, randomness).items()}

    run_training(tmp_path, options={"conditioner": darker, "objective": blank}, steps=2)


def test_run_folder_is_not_taken_over(tmp_path):
    with pytest.raises(TrainingError, match="no training to resume"):
        run_training(tmp_path, options={"resume": "always"})
    run_training(tmp_path, steps=2)
    with pytest.raises(TrainingError, match="holds a training already"):
        run_training(tmp_path, options={"resume": "never"})
    with pytest.raises(CheckpointError, match=r"config\.width is 8 there, 16 now"):
        run_training(tmp_path, FakeStage(FakeConfig(width=16)))


def test_unfit_requests_are_named(tmp_path):
    with pytest.raises(TrainingError, match="gives 8 images to each of 1 process"):
        run_training(tmp_path, loader=FakeLoader(8))
    with pytest.raises(TrainingError, match="batch of 16 cannot be cut into 3"):
        run_training(tmp_path, accumulate=3)
    with pytest.raises(OptionError, match="no network of the fake supports it"):
        run_training(tmp_path, gradient_checkpointing=True)
    with pytest.raises(OptionError, match="tracker 'nothing'"):
        run_training(tmp_path, options={"tracker": "nothing"})


def test_a_preview_that_cannot_be_written_does_not_end_the_training(tmp_path, capsys):
    (tmp_path / "previews").write_text("in the way")
    options = {"preview": lambda stage: Image.new("RGB", (4, 4))}
    _, report = run_training(tmp_path, options=options, preview_every=5)
    assert report.ending == "done"
    assert "no preview" in capsys.readouterr().err


def test_one_process_instead_of_several_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.warns(UserWarning, match="use torchrun --nproc-per-node 2"):
        run_training(tmp_path)
