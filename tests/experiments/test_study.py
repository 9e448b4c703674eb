import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import all as every
import study as frame
from study import QUICK, Setting, Stopped, Study, bar, in_words, main, parser, run
from table import table
from unclip.errors import OptionError


def measure(setting: Setting) -> dict:
    setting.picture("sheet", Image.new("RGB", (4, 4), "red"))
    points = {str(x): setting.point(f"x {x}", lambda x=x: {"y": x * setting.count}) for x in (1, 2)}
    return {"points": points}


def plot(numbers: dict, figure) -> None:
    axes = figure.subplots()
    axes.plot([point["y"] for point in numbers["points"].values()])


def ours(numbers: dict) -> dict[str, str]:
    return {"Fig. 0": f"{numbers['points']['2']['y']} at two"}


def study_of(measure=measure, plot=plot, name: str = "doubling", count: int = 10) -> Study:
    return Study(name, "Fig. 0", "Does it double?", measure, plot, ours, count)


STUDY = study_of()


@pytest.fixture
def words(tmp_path: Path, tiny_model: Path) -> list[str]:
    return [
        f"--model={tiny_model}",
        f"--evaluator={tmp_path}",
        f"--work={tmp_path / 'work'}",
        f"--out={tmp_path / 'results'}",
        "--nice=0",
    ]


def test_a_study_writes_numbers_plot_pictures_and_how(words: list[str]) -> None:
    results = main(STUDY, words)
    assert json.loads((results / "numbers.json").read_text()) == {
        "complete": True,
        "points": {"1": {"y": 10}, "2": {"y": 20}},
    }
    made = json.loads((results / "made.json").read_text())
    assert (made["shows"], made["count"], made["evaluator"]) == ("Fig. 0", 10, None)
    assert made["fingerprint"]
    for name in ("plot.png", "sheet.png"):
        with Image.open(results / name) as picture:
            assert picture.format == "PNG"
    assert sorted(path.name for path in results.parent.iterdir()) == ["doubling"]


def test_points_are_computed_once_for_each_setting(
    words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def setting(*more: str) -> Setting:
        return Setting(STUDY, parser(STUDY).parse_args([*words, *more]))

    calls = []

    def compute() -> dict:
        calls.append(1)
        return {"value": len(calls)}

    assert setting().point("a", compute) == {"value": 1}
    assert setting().point("a", compute) == {"value": 1}
    assert setting().point("b", compute) == {"value": 2}
    assert setting("--count=11").point("a", compute) == {"value": 3}
    assert setting("--seed=1").point("a", compute) == {"value": 4}
    assert setting("--train=5").point("a", compute) == {"value": 5}
    quick, same = setting("--quick"), setting(f"--count={QUICK}")
    assert quick.point("a", compute) == {"value": 6}
    assert same.point("a", compute) == {"value": 7}
    changed = setting()
    with monkeypatch.context() as patch:
        defaults = changed.model.defaults.model_copy(update={"candidates": 7})
        patch.setattr(changed.model, "defaults", defaults)
        assert changed.point("a", compute) == {"value": 8}
    assert setting().point("a", compute) == {"value": 1}


def test_a_study_that_fails_leaves_the_last_results(words: list[str]) -> None:
    results = main(STUDY, words)
    before = {path.name: path.read_bytes() for path in results.iterdir()}

    def fail(numbers: dict, figure) -> None:
        raise RuntimeError("no plot")

    broken = study_of(plot=fail, count=20)
    with pytest.raises(RuntimeError, match="no plot"):
        main(broken, words)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_numbers_are_plotted_again_without_measuring(words: list[str]) -> None:
    results = main(STUDY, words)
    (results / "plot.png").unlink()
    main(STUDY, [*words, "--redraw"])
    assert (results / "plot.png").exists()


def test_the_time_left_is_told_from_the_pace(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(frame.time, "monotonic", lambda: now[0])
    setting = Setting(STUDY, parser(STUDY).parse_args(words))
    setting.expect(5)

    def last(seconds: float) -> dict:
        now[0] += seconds
        return {}

    setting.point("short", lambda: last(60), cost=1)
    setting.point("long", lambda: last(180), cost=2)  # 4 minutes for 3 of 5
    said = capsys.readouterr().err.splitlines()
    assert [line.partition("about ")[2] for line in said] == ["4 min left", "3 min left"]


@pytest.mark.parametrize("how", ["time", "interrupt"])
def test_a_stopped_study_keeps_its_points_and_goes_on(
    how: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(frame.time, "monotonic", lambda: now[0])

    def measure(setting: Setting) -> dict:
        def compute(x: int) -> dict:
            if how == "interrupt" and calls == [1]:
                calls.append(0)
                raise KeyboardInterrupt
            calls.append(x)
            now[0] += 90
            return {"y": x}

        found = {str(x): setting.point(f"x {x}", lambda x=x: compute(x)) for x in (1, 2, 3)}
        return {"points": found}

    study = study_of(measure)
    arguments = parser(study).parse_args([*words, *(["--minutes=1"] if how == "time" else [])])
    with pytest.raises(Stopped):
        run(study, arguments)
    results = frame.folder_of(study, arguments)
    assert json.loads((results / "numbers.json").read_text()) == {
        "complete": False,
        "points": {"x 1": {"y": 1}},
    }
    assert not (results / "plot.png").exists()
    arguments.minutes = None
    run(study, arguments)
    assert [call for call in calls if call] == [1, 2, 3], "no point is measured twice"
    assert json.loads((results / "made.json").read_text())["seconds"] == 270
    assert (results / "plot.png").exists()


def test_a_tensor_is_kept_for_the_next_run(words: list[str]) -> None:
    wanted = torch.tensor([True, False, True])
    for compute in (lambda: wanted, pytest.fail):
        setting = Setting(STUDY, parser(STUDY).parse_args(words))
        assert torch.equal(setting.kept("hits", compute), wanted)


def test_quick_results_take_nobody_s_place(words: list[str], tmp_path: Path) -> None:
    words = [word for word in words if not word.startswith("--out")]
    assert main(STUDY, [*words, "--quick"]) == tmp_path / "work" / "quick" / "doubling"


def test_a_bar_says_whether_a_figure_keeps_to_it() -> None:
    score = {"value": 0.75, "standard_error": 0.02, "n": 100}
    assert bar("found", score, least=0.8)["met"] is False
    assert bar("found", score, most=0.8)["met"] is True
    assert bar("found", score, 0.7, 0.8)["met"] is True
    assert bar("found", {**score, "value": None}, least=0)["met"] is False
    words = "not met  found: 0.75 ± 0.02 (n = 100), wanted 0.8 or more"
    assert in_words(bar("found", score, least=0.8)) == words


def test_all_studies_run_on_after_one_that_fails(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(setting: Setting) -> dict:
        raise RuntimeError("broken")

    def refuses(setting: Setting) -> dict:
        raise OptionError("another prior is needed")

    def judged(setting: Setting) -> dict:
        score = {"value": 0.5, "standard_error": 0.1, "n": 9}
        return {**measure(setting), "bars": [bar("half", score, least=0.4)]}

    studies = {
        "binding": study_of(breaks, name="a"),
        "inversion": study_of(refuses, name="b"),
        "components": study_of(judged, name="c"),
    }
    monkeypatch.setattr(every, "study", lambda name: studies.get(name, STUDY))
    monkeypatch.setattr("table._studies", lambda: studies.items())
    assert every.main([*words, "--only", *studies]) == 1
    errors = capsys.readouterr().err
    assert "RuntimeError: broken" in errors
    assert "inversion: not run: another prior is needed" in errors
    results = Path(words[3].removeprefix("--out="))
    lines = (results / "table.md").read_text().splitlines()
    assert lines[2:] == [
        "| Fig. 0 | `components` | 20 at two |",
        "",
        "- `components`: met      half: 0.5 ± 0.1 (n = 9), wanted 0.4 or more",
    ]
    assert table(results).splitlines() == lines


def test_the_driver_knows_every_study() -> None:
    modules = {path.stem for path in frame.HERE.glob("*.py") if "\nSTUDY = " in path.read_text()}
    assert set(every.STUDIES) == modules
    for name in every.STUDIES:
        study = every.study(name)
        assert study.count >= 1000 or study.name == "inversion"
