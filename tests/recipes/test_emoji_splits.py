from itertools import combinations

import pytest
from splits import (
    ALWAYS_TRAINED,
    COLOURS,
    chance,
    contains_held,
    held_cell,
    held_colour,
    held_colour_pairs,
    held_concept,
    held_relation,
    held_words,
    trained_order,
)

NAMES = [f"thing {number}" for number in range(3000)]


def share(flags) -> float:
    flags = list(flags)
    return sum(flags) / len(flags)


def test_hash_is_the_same_on_every_machine():
    assert chance("C", "cat") == pytest.approx(0.12372935383754664)
    assert chance("E", "cat", "dog") == pytest.approx(0.6133068492784959)


def test_shares_are_as_documented():
    assert abs(share(held_concept(name) for name in NAMES) - 0.08) < 0.015
    assert abs(share(held_cell(name, "noto", 3) for name in NAMES) - 0.10) < 0.02
    assert abs(share(held_colour(name, "red") for name in NAMES) - 0.10) < 0.02
    pairs = combinations(NAMES[:80], 2)
    assert abs(share(held_relation(*pair) for pair in pairs) - 0.10) < 0.02


def test_a_cell_needs_three_families():
    assert not any(held_cell(name, "noto", 2) for name in NAMES)


def test_demo_concepts_stay_in_training():
    assert {"red apple", "birthday cake", "dragon face"} <= ALWAYS_TRAINED
    assert not any(held_concept(name) for name in ALWAYS_TRAINED)


def test_twelve_colour_pairs_are_held():
    pairs = held_colour_pairs()
    assert len(pairs) == 12
    assert all(ink != paper and {ink, paper} <= set(COLOURS) for ink, paper in pairs)


def test_relations_do_not_depend_on_the_order_of_asking():
    for a, b in combinations(NAMES[:40], 2):
        assert held_relation(a, b) == held_relation(b, a)
        assert trained_order(a, b) == trained_order(b, a)
    firsts = [trained_order(a, b)[0] == a for a, b in combinations(NAMES[:80], 2)]
    assert 0.45 < share(firsts) < 0.55


def test_held_words_are_a_tenth_and_in_no_name():
    words = [f"word{n}" for n in range(400)] + ["cat", "cats", "gray cat"]
    held = held_words(words, "en", ["black cat", "word7 tree"])
    assert len(held) == round(0.1 * len(set(words)))
    assert not {"cat", "cats", "gray cat", "word7"} & set(held)
    assert held == held_words(reversed(words), "en", ["word7 tree", "black cat"])


def test_korean_held_words_are_inside_no_name():
    words = ["고양이", "강아지", "눈", *(f"낱말{chr(0xAC00 + n)}" for n in range(200))]
    held = held_words(words, "ko", ["검은 고양이", "강아지 얼굴"])
    assert not {"고양이", "강아지", "눈"} & set(held)
    assert len(held) == 20


def test_contains_held():
    held = frozenset({"kitten", "hot dog"})
    assert contains_held("a kitten on a roof", held, "en")
    assert contains_held("two kittens", held, "en")
    assert contains_held("a big hot dog, glossy style", held, "en")
    assert not contains_held("hot and dog", held, "en")
    assert not contains_held("kitchen", held, "en")
    assert contains_held("새끼고양이가 있다", frozenset({"고양이"}), "ko")
