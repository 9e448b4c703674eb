"""What a training tells: the log file after kills, the pace despite pauses, lines and bars."""

import io
import json

import torch
from rich.console import Console

from unclip.training import log
from unclip.training.log import Bar, Lines, LogFile, Mean, Pace, clock, open_display, read_log

RECORD = {"step": 3, "losses": {"loss": 0.5}, "lr": 1e-3, "images_per_second": 20.0}


def test_log_drops_later_lines_and_cut_ones(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"ste')
    file = LogFile(path, step=3)
    file.append({"step": 4, "again": True})
    file.close()
    assert read_log(path) == [{"step": 1}, {"step": 2}, {"step": 3}, {"step": 4, "again": True}]


def test_pace_ignores_pauses(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    pace = Pace()
    assert pace.images_per_second == 0.0
    for step in range(10):
        now[0] += 3600.0 if step == 5 else 0.5  # stopped for an hour at step 5
        pace.tick(16)
    assert pace.images_per_second == 32.0
    now[0] += 100.0
    pace.skip()
    for _ in range(20):
        now[0] += 1.0
        pace.tick(16)
    assert pace.images_per_second == 16.0


def test_means_survive_a_checkpoint_exactly():
    values = torch.rand(7)
    straight, first = Mean(), Mean()
    for value in values:
        straight.add({"loss": value}, 1.0)
        straight.step()
    for value in values[:3]:
        first.add({"loss": value}, 1.0)
        first.step()
    second = Mean(json.loads(json.dumps(first.pending())))
    for value in values[3:]:
        second.add({"loss": value}, 1.0)
        second.step()
    means = straight.take()
    assert second.take() == means
    assert abs(means["loss"] - values.mean().item()) < 1e-6
    assert straight.take() == {}


def test_lines_are_few_and_the_last_is_shown(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    text = io.StringIO()
    lines = Lines(Console(file=text), "decoder", 100)
    for step in range(1, 101):
        now[0] += 0.3
        lines.update(step, RECORD, 3725.0)
    shown = text.getvalue().splitlines()
    assert len(shown) == 4
    assert "decoder 1/100 loss 0.5  lr 0.001  20 images/s  1:02:05 left" in shown[0]
    assert "100/100" in shown[-1]


def test_bar_shows_step_and_time_left():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    bar = Bar(console, "decoder", 100, 0)
    bar.update(42, RECORD, 60.0)
    bar.note("resumed [after] step 3")
    bar.close()
    assert "42/100" in text.getvalue()
    assert "0:01:00 left" in text.getvalue()
    assert "resumed [after] step 3" in text.getvalue()


def test_only_the_first_process_shows_anything(capsys):
    display = open_display("decoder", 10, 0, main=False)
    display.update(10, RECORD, 0.0)
    display.note("hello")
    display.close()
    assert capsys.readouterr() == ("", "")
    assert isinstance(open_display("decoder", 10, 0, main=True), Lines)


def test_clock():
    assert clock(59.9) == "0:00:59"
    assert clock(7322.0) == "2:02:02"
