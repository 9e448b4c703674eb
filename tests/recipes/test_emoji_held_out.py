import numpy as np
import pytest
from held_out import held_out
from scenes import Scenes
from splits import COLOURS, held_colour_pairs


@pytest.fixture(scope="module")
def source(packed) -> Scenes:
    return Scenes(packed)


@pytest.mark.parametrize("split", ["train", "B", "C", "D", "E", "S"])
def test_questions_are_the_same_every_time(source, packed, split):
    first, again = held_out(source, split, 12), held_out(Scenes(packed), split, 12)
    assert [q.caption for q in first] == [q.caption for q in again]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert len({q.key for q in first}) == len(first) > 0


def test_unseen_colours_are_painted_and_swapped_in_the_foil(source):
    for question in held_out(source, "D", 60):
        ink, paper = question.colours
        assert tuple(question.image[0, 0]) == COLOURS[paper]
        assert tuple(question.image[32, 32]) == COLOURS[ink]
        assert question.caption.index(ink) < question.caption.index(paper)
        assert question.foil.index(paper) < question.foil.index(ink)
    assert any(q.colours in held_colour_pairs() for q in held_out(source, "D", 200))


def test_unseen_relations_are_mirrored_in_the_foil(source):
    for question in held_out(source, "E", 40):
        assert sorted(question.caption.split()) == sorted(question.foil.split())
        assert question.caption != question.foil


def test_held_words_are_asked_for(source):
    words = {word for words in source.atlas.held_words.values() for word in words}
    assert {question.caption for question in held_out(source, "S", 20)} <= words


def test_an_unknown_split_is_named(source):
    with pytest.raises(ValueError, match="no split 'Z'"):
        held_out(source, "Z")
