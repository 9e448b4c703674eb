from random import Random

import captions
import pytest
from aliases import korean_icon_name
from captions import Shown, without_colour
from grammar import article, countable, joined, plural, subject
from names import clean_korean, clean_name, cluster, code, icon_name, squash


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("apple", "an apple"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass", "an hourglass"),
        ("ufo", "a ufo"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("x-ray", "an x-ray"),
        ("ukulele", "a ukulele"),
        ("red apple icon", "a red apple icon"),
    ],
)
def test_article(phrase, expected):
    assert article(phrase) == expected


@pytest.mark.parametrize(
    "name", ["cat", "bus", "glass of milk", "man raising hand", "octopus", "ring"]
)
def test_countable(name):
    assert countable(name)


@pytest.mark.parametrize(
    "name", ["paw prints", "tennis", "glasses", "rice", "surfing", "locked", "2nd place medal"]
)
def test_not_countable(name):
    assert not countable(name)


def test_symbols_are_countable_only_by_a_known_noun():
    assert countable("stop button", symbol=True)
    assert not countable("aries", symbol=True)
    assert not countable("no entry", symbol=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cats"),
        ("loaf of bread", "loaves of bread"),
        ("face with tongue", "faces with tongue"),
        ("cherry", "cherries"),
        ("toy", "toys"),
        ("fox", "foxes"),
        ("witch", "witches"),
        ("fish", "fish"),
        ("snowman", "snowmen"),
        ("woman raising hand", "women raising hand"),
        ("woman cook", "woman cooks"),
        ("kitchen knife", "kitchen knives"),
    ],
)
def test_plural(name, expected):
    assert plural(name) == expected


def test_korean_particles_follow_the_last_sound():
    assert joined("사과", "배") == "사과와 배"
    assert joined("곰", "배") == "곰과 배"
    assert subject("사과") == "사과가"
    assert subject("곰") == "곰이"


def test_colour_is_removed_before_recolouring():
    assert without_colour("red heart", "en") == "heart"
    assert without_colour("large orange diamond", "en") == "large diamond"
    assert without_colour("orange", "en") == "orange"
    assert without_colour("빨간색 하트", "ko") == "하트"
    assert without_colour("큰 파란색 마름모", "ko") == "큰 마름모"


def test_names_are_cleaned():
    assert clean_name("Woman’s Boot") == "woman's boot"
    assert clean_name("man: white hair") == "man with white hair"
    assert clean_name("woman: beard") == "woman with a beard"
    assert clean_name("person: bald") == "bald person"
    assert clean_name("A button (blood type)") == "a button"
    assert clean_korean("남자: 흰 머리") == "흰 머리 남자"


def test_men_women_and_people_share_a_cluster():
    assert cluster("man firefighter") == cluster("woman firefighter") == "firefighter"
    assert cluster("man with a beard") == cluster("person with beard") == "beard"
    assert cluster("woman") == "person"
    assert cluster("snowman") == "snowman"


def test_names_and_codes_match_however_they_are_written():
    assert squash("Love-letter") == squash("loveletter") == squash("love letter")
    assert squash("piñata") == "pinata"
    assert code("1F468-200D-2764-FE0F") == "1f468-200d-2764"


def test_icon_names():
    assert icon_name("dragon-head", "game-icons") == "dragon head"
    assert icon_name("fruit-banana", "streamline-ultimate-color") == "banana"
    assert icon_name("delivery-truck-3", "streamline-ultimate-color") == "delivery truck"
    assert icon_name("tarot-17-the-star", "game-icons") == "star"


@pytest.mark.parametrize(
    "slug", ["abstract-042", "spotify-logo-2", "bloody-sword", "card-7-clubs", "pokeball"]
)
def test_blocked_icons(slug):
    assert icon_name(slug, "game-icons") is None


def test_korean_names_of_icons():
    assert korean_icon_name("dragon head") == "용 머리"
    assert korean_icon_name("dragon sonnet") is None


def english(kind, *parts) -> set[str]:
    return {getattr(captions, kind)(*parts, "en", Random(seed)) for seed in range(300)}


def test_glyph_captions_name_both_colours():
    shown = Shown("dragon head", icon=True, style="silhouette", colour="blue")
    made = english("glyph", shown, "yellow")
    assert "a blue dragon head icon on a yellow background" in made
    assert all("blue" in text and "yellow" in text and "dragon head" in text for text in made)


def test_pair_captions_keep_the_order():
    first, second = Shown("pizza", False, "flat"), Shown("guitar", False, "flat")
    made = english("pair", first, second, "left", None)
    assert made == {
        "a pizza to the left of a guitar",
        "a guitar to the right of a pizza",
    }
    made = english("pair", first, second, "front", "red")
    assert made == {
        "a pizza in front of a guitar, on a red background",
        "a guitar behind a pizza, on a red background",
    }


def test_korean_pairs_keep_the_order():
    first, second = Shown("피자", False, "플랫"), Shown("기타", False, "플랫")
    for seed in range(100):
        text = captions.pair(first, second, "left", None, "ko", Random(seed))
        assert text.startswith(("기타 왼쪽에", "피자 오른쪽에"))


def test_counts_agree_with_their_noun():
    cat = Shown("cat", False, "flat")
    assert english("several", cat, 3, None) == {"three cats", "three cats, flat style"}
    icon = Shown("dragon head", True, "silhouette", colour="red")
    assert english("several", icon, 2, "blue") == {"two red dragon head icons on a blue background"}
    text = captions.several(
        Shown("고양이", False, "플랫", counter="마리"), 2, None, "ko", Random(1)
    )
    assert text.startswith("고양이 두 마리")


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("usual", [True, False])
def test_only_a_usual_style_is_left_unsaid(language, usual):
    cat, cow = (Shown(name, False, "blob", usual=usual) for name in ("cat", "cow"))
    parts = {
        "single": (cat, None),
        "pair": (cat, cow, "next", "red"),
        "sizes": (cat, cow, None),
        "several": (cat, 3, "blue"),
    }
    for kind, given in parts.items():
        made = [getattr(captions, kind)(*given, language, Random(seed)) for seed in range(200)]
        unsaid = sum("blob" not in text for text in made) / len(made)
        assert unsaid > 0.3 if usual else unsaid == 0, kind
