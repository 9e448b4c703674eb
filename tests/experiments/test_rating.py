"""The human evaluation: its statistics, that it is blind, and the page's data."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rating
import study
from rating import arrange, main, tally, write_page
from unclip.errors import DataError

SIDES = ("unCLIP", "caption alone")


def choices(wins: int, losses: int, unsure: int = 0, question: str = "diversity") -> list[dict]:
    """As the page writes them, ours now left, now right."""
    made = []
    for number in range(wins + losses + unsure):
        left, right = SIDES if number % 2 else SIDES[::-1]
        ours = "left" if left == "unCLIP" else "right"
        theirs = "right" if ours == "left" else "left"
        choice = ours if number < wins else theirs if number < wins + losses else "not sure"
        made.append({"question": question, "left": left, "right": right, "choice": choice})
    return made


def test_shares_and_intervals_are_those_of_table_1() -> None:
    score = tally(choices(705, 295), "unCLIP")["diversity"]
    assert (score.value, score.n) == (0.705, 1000)
    assert round(100 * score.interval, 1) == 2.8


def test_those_who_are_not_sure_count_for_neither() -> None:
    score = tally(choices(30, 10, unsure=60), "unCLIP")["diversity"]
    assert (score.value, score.n) == (0.75, 40)
    other = tally(choices(30, 10, unsure=60), "caption alone")["diversity"]
    assert other.value == 0.25


def test_questions_are_counted_apart() -> None:
    both = choices(3, 1) + choices(1, 3, question="caption")
    scores = tally(both, "unCLIP")
    assert {name: score.value for name, score in scores.items()} == {
        "diversity": 0.75,
        "caption": 0.25,
    }
    assert tally([], "unCLIP") == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"choice": "middle"},
        {"question": "taste"},
        {"left": "GLIDE", "right": "GLIDE"},
        {"left": "GLIDE", "right": "VQGAN"},
    ],
)
def test_choices_of_another_page_are_refused(wrong: dict) -> None:
    with pytest.raises(DataError, match="choice 1"):
        tally([{**choices(1, 0)[0], **wrong}], "unCLIP")


def test_sides_are_shuffled_evenly_and_the_same_every_time() -> None:
    captions = [f"caption {i}" for i in range(200)]
    found = arrange(captions, SIDES, seed=0)
    assert len(found) == 600
    assert {(one.key, one.question) for one in found} == {
        (f"{i:04}", question) for i in range(200) for question in rating.QUESTIONS
    }
    left = np.mean([one.left == "unCLIP" for one in found])
    assert 0.4 < left < 0.6
    assert found == arrange(captions, SIDES, seed=0)
    assert found != arrange(captions, SIDES, seed=1)


def test_the_page_is_blind_and_whole(tmp_path: Path) -> None:
    captions = ["a cat </script>", "a dog"]
    colours = {"unCLIP": 200, "caption alone": 50}
    pictures = {
        name: [np.full((4, 8, 8, 3), level + 10 * i, np.uint8) for i in range(2)]
        for name, level in colours.items()
    }
    comparisons = arrange(captions, SIDES, seed=0)
    folder = tmp_path / "rating"
    write_page(folder, comparisons, pictures)
    page = (folder / "index.html").read_text()
    assert page.count("</script>") == 1
    data = json.loads(re.search(r"const data = (.*);\n", page)[1].replace("<\\/", "</"))
    assert [item["caption"] for item in data["items"]] == [one.caption for one in comparisons]
    for item in data["items"]:
        for side in ("left", "right"):
            name = item["pictures"][side]
            assert item[side].split()[0].lower() not in name.lower()
            with Image.open(folder / name) as picture:
                level = colours[item[side]] + 10 * int(item["key"])
                assert picture.getpixel((0, 0)) == (level,) * 3
                assert picture.width == (16 if item["question"] == "diversity" else 8)
    with pytest.raises(DataError, match="another --output"):
        write_page(folder, comparisons, pictures)


@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
def test_make_draws_both_sides_and_writes_the_page(
    tmp_path: Path, tiny_model: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "ROOT", tmp_path)
    words = [f"--model={tiny_model}", f"--cache={packed}", f"--output={tmp_path / 'rating'}"]
    main(["make", *words, "--count=1"])
    assert (tmp_path / "rating" / "index.html").is_file()
    assert len(list((tmp_path / "rating" / "pictures").iterdir())) == 2 * len(rating.QUESTIONS)


def test_downloads_of_several_people_are_counted_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (wins, losses) in enumerate(((3, 0), (0, 1))):
        (tmp_path / f"{number}.json").write_text(json.dumps(choices(wins, losses)))
    main(["count", str(tmp_path / "0.json"), str(tmp_path / "1.json")])
    assert "75.0 %" in capsys.readouterr().out
