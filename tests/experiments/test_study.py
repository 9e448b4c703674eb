import json
from pathlib import Path

import pytest
from PIL import Image

from study import Setting, Study, main, parser


def measure(setting: Setting) -> dict:
    setting.picture("sheet", Image.new("RGB", (4, 4), "red"))
    points = {str(x): setting.point(f"x {x}", lambda x=x: {"y": x * setting.count}) for x in (1, 2)}
    return {"points": points}


def plot(numbers: dict, figure) -> None:
    axes = figure.subplots()
    axes.plot([point["y"] for point in numbers["points"].values()])


STUDY = Study("doubling", "Fig. 0", "Does it double?", measure, plot, count=10)


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
        "points": {"1": {"y": 10}, "2": {"y": 20}}
    }
    made = json.loads((results / "made.json").read_text())
    assert (made["shows"], made["count"], made["evaluator"]) == ("Fig. 0", 10, None)
    assert made["fingerprint"]
    for name in ("plot.png", "sheet.png"):
        with Image.open(results / name) as picture:
            assert picture.format == "PNG"
    assert sorted(path.name for path in results.parent.iterdir()) == ["doubling"]


def test_points_are_computed_once_for_each_setting(words: list[str]) -> None:
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


def test_a_study_that_fails_leaves_the_last_results(words: list[str]) -> None:
    results = main(STUDY, words)
    before = {path.name: path.read_bytes() for path in results.iterdir()}

    def fail(numbers: dict, figure) -> None:
        raise RuntimeError("no plot")

    broken = Study("doubling", "Fig. 0", "Does it double?", measure, fail, count=20)
    with pytest.raises(RuntimeError, match="no plot"):
        main(broken, words)
    assert {path.name: path.read_bytes() for path in results.iterdir()} == before


def test_numbers_are_plotted_again_without_measuring(words: list[str]) -> None:
    results = main(STUDY, words)
    (results / "plot.png").unlink()
    main(STUDY, [*words, "--redraw"])
    assert (results / "plot.png").exists()
