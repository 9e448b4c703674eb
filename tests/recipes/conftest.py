import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes" / "emoji"))

from build import SIDES
from drawings import Drawing, Table
from names import Concept
from packages import BY_KEY
from splits import contains_held, held_cell, held_concept, held_words


def _words(text: str) -> list[str]:
    return text.split()


ANIMALS = _words("""
    ant bear bee bird boar camel cat cow crab deer dog duck eagle elk fish fox frog goat
    horse koala lion llama mole moose newt otter owl ox panda pig rabbit ram rat robin seal
    shark sheep skunk sloth snail snake swan tiger toad trout turkey turtle whale wolf yak
    zebra
""")
TOOLS = _words("""
    anvil axe bolt chisel clamp drill file gauge hammer jack lathe nail plane saw vise
""")


def own_colour(number: int) -> tuple[int, int, int]:
    """A colour no other drawing has, and no background."""
    return 60 + 3 * number, 130, 250 - 4 * number


def build_table() -> Table:
    """51 animals in three sets, one of them one-coloured; 15 such icons, 6 also in colour."""
    concepts = {}
    for number, name in enumerate(ANIMALS):
        concept = Concept(f"{number:x}", group=3, subgroup=34)
        syllable = chr(0xAC00 + 28 * number)
        concept.names = {"en": [name, f"{name} face"], "ko": [f"동물{syllable}"]}
        concept.keywords = {
            "en": [f"{name}ish", f"tame{name}", "farmyard"],
            "ko": [f"낱말{chr(0xAC00 + 28 * number)}"],
        }
        concepts[concept.key] = concept
    for name in TOOLS:
        concepts[name] = Concept(name, names={"en": [name], "ko": []})
    drawings = [
        Drawing(art, name, key, BY_KEY[art].family, BY_KEY[art].one_colour)
        for art in ("noto", "twemoji", "emojione-monotone")
        for name, key in zip(ANIMALS, concepts, strict=False)
    ]
    drawings += [Drawing("game-icons", name, name, "game-icons", True) for name in TOOLS]
    colour = "flat-color-icons"
    drawings += [Drawing(colour, name, name, colour, False) for name in TOOLS[:6]]
    for drawing in drawings:
        cluster = concepts[drawing.concept].cluster
        if concepts[drawing.concept].group >= 0 and held_concept(cluster):
            drawing.split = "C"
        elif held_cell(cluster, drawing.family, 3 if concepts[drawing.concept].group >= 0 else 1):
            drawing.split = "B"
    table = Table(concepts, drawings, {})
    for language in ("en", "ko"):
        every = [w for c in concepts.values() for w in c.keywords[language]]
        named = [n for c in concepts.values() for n in c.names[language]]
        table.held_words[language] = held_words(every, language, named)
        held = frozenset(table.held_words[language])
        for key, concept in concepts.items():
            words = concept.keywords[language]
            taken = [w for w in words if contains_held(w, held, language)]
            concept.keywords[language] = [w for w in words if w not in taken]
            if taken:
                table.held_keywords.setdefault(key, {})[language] = taken
    return table


def paint(drawing: Drawing, number: int, side: int) -> np.ndarray:
    """An opaque square with a transparent margin of a quarter on each side."""
    image = np.zeros((side, side, 4), np.uint8)
    margin = side // 4
    colour = (0, 0, 0) if drawing.one_colour else own_colour(number)
    image[margin : side - margin, margin : side - margin] = (*colour, 255)
    return image


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """A folder as `build.py` leaves it, of plain squares."""
    folder = tmp_path_factory.mktemp("emoji")
    table = build_table()
    table.write(folder / "drawings.json")
    (folder / "rgba").mkdir()
    numbers = {key: number for number, key in enumerate(table.concepts)}
    for side in SIDES:
        images = [paint(d, numbers[d.concept], side) for d in table.drawings]
        np.save(folder / "rgba" / f"{side}.npy", np.stack(images))
    return folder
