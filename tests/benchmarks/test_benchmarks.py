"""The harness alone: nothing here is timed."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import machine  # noqa: E402
import report  # noqa: E402
import workers  # noqa: E402
from cases import CASES  # noqa: E402
from measure import Summary, alternate, ratios  # noqa: E402
from run import _add_ratios, _add_times, _complete_run  # noqa: E402

FAKE = """
import sys, types
sys.path.insert(0, {folder!r})
import worker
class Fake:
    def __init__(self, size): self.size = size
    def facts(self): return {{"size": self.size}}
    def run(self): print("noise on stdout")
class Broken(Fake):
    def run(self): raise ValueError("this side is broken")
sys.modules["subjects.fake"] = types.SimpleNamespace(Fake=Fake, Broken=Broken)
worker.serve()
"""


class Recorder:
    def __init__(self, name: str, seconds: list[float], log: list[str]) -> None:
        self.name, self.seconds, self.log = name, iter(seconds), log

    def run(self) -> float:
        self.log.append(self.name)
        return next(self.seconds)


def test_sides_alternate_and_take_turns_in_going_first():
    log: list[str] = []
    sides = {
        "ours": Recorder("ours", [1, 2, 3], log),
        "theirs": Recorder("theirs", [4, 5, 6], log),
    }
    assert alternate(sides, 3) == {"ours": [1, 2, 3], "theirs": [4, 5, 6]}
    assert log == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]


def test_median_and_quartiles():
    assert Summary.of([7, 1, 3, 5, 9]) == Summary(5, 3, 7)
    assert Summary.of([4, 1, 2, 3]) == Summary(2.5, 1.75, 3.25)
    assert Summary.of([2.0]) == Summary(2, 2, 2)


def test_ratios_are_taken_pair_by_pair():
    # A machine that is twice as slow in the second pair does not touch the ratio.
    assert ratios([3, 6, 3], [1, 2, 1]) == Summary(3, 3, 3)


def side(gflop: float) -> dict:
    return {"label": "x", "gflop": gflop, "peak_gib": 1.5, "versions": {"torch": "2"}}


def result(must: float = 2.0, by_work: bool = True) -> dict:
    both = {"ours": side(400.0), "theirs": side(200.0)}
    seconds = {"ours": [1.0, 1.0, 2.0], "theirs": [3.0, 3.0, 3.0]}
    facts = {"title": "A step", "machine": "2 cores", "date": "2026-01-01", "pairs": 3}
    made = facts | {"name": "fake", "must": must, "per": 1, "sides": both}
    for name, values in seconds.items():
        _add_times(both[name], values, 1)
    _add_ratios(made, seconds, by_work)
    return made


def test_a_side_that_does_more_work_is_credited_with_it():
    made = result()
    assert made["sides"]["ours"]["tflop_per_second"] == 0.4
    assert made["ratio"]["median"] == 6
    assert result(by_work=False)["ratio"]["median"] == 3


def test_the_page_says_what_fell_short_and_keeps_its_prose():
    text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    page = report.page(text, [result(must=5.0)])
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert "not reached" not in page
    assert "7, not reached" in report.page(page, [result(must=7.0)])
    assert report.page(page, [result(must=5.0)]) == page


class Stepper(Recorder):
    def ask(self, do: str) -> dict[str, float]:
        assert do == "peak"
        return {"gflop": 0.0, "peak_gib": 3.0}


def test_a_complete_run_is_cut_into_its_stages():
    case = next(case for case in CASES if case.name == "karlo")
    counts = {"options": {"steps": [2, 3, 1]}, "label": "one"}
    begun = {"must": 5.0, "sides": {"ours": dict(counts), "theirs": dict(counts)}}
    log: list[str] = []
    both = {
        "ours": Stepper("ours", [1, 1, 9, 2, 2, 4], log),
        "theirs": Stepper("theirs", [3, 5, 2, 4, 6, 20], log),
    }
    whole = _complete_run(case, begun, both)
    assert whole["sides"]["theirs"]["seconds"] == [40]
    assert whole["ratio"]["median"] == round(40 / 19, 4)
    assert whole["must"] is None
    assert whole["sides"]["ours"]["peak_gib"] == 3
    steps, *stages = whole["parts"]
    # The first step of a stage may hold its loading, which the median leaves out.
    assert steps["sides"]["ours"]["seconds"] == [2 * 1 + 3 * 2 + 1 * 4]
    assert steps["ratio"]["median"] == round((2 * 4 + 3 * 4 + 20) / 12, 4)
    assert steps["must"] == 5
    assert [part["pairs"] for part in stages] == [2, 3, 1]
    assert [part["ratio"]["median"] for part in stages] == [4, 2, 5]
    assert [part["must"] for part in stages] == [None] * 3


@pytest.fixture
def fake_worker(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(FAKE.format(folder=str(BENCHMARKS)))
    monkeypatch.setattr(workers, "SCRIPT", script)
    with workers.Worker(Path(sys.executable)) as worker:
        yield worker


def test_a_worker_answers_though_its_subject_prints(fake_worker):
    prepared = fake_worker.ask("prepare", subject="fake.Fake", options={"size": 3})
    assert prepared["facts"] == {"size": 3}
    assert prepared["versions"]["unclip"]
    assert fake_worker.run() >= 0


def test_a_failure_arrives_with_its_traceback_and_the_worker_lives_on(fake_worker):
    fake_worker.ask("prepare", subject="fake.Broken", options={"size": 3})
    with pytest.raises(workers.WorkerError, match="this side is broken"):
        fake_worker.run()
    assert fake_worker.ask("prepare", subject="fake.Fake", options={"size": 1})["facts"]


def test_machine_class_names_no_host(monkeypatch):
    monkeypatch.setattr(machine, "_flags", lambda: {"avx2", "avx512f", "avx512_bf16"})
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    assert machine.machine_class().endswith("AVX-512 + bf16, no AMX")
    monkeypatch.setattr(machine, "_flags", lambda: {"avx2"})
    assert machine.machine_class().endswith("AVX2, no AMX")


def test_cases_are_told_apart_and_stored_results_are_of_them():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    for path in (BENCHMARKS / "results").glob("*.json"):
        assert json.loads(path.read_text())["name"] in names
