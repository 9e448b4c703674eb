"""The table of drawings: which icon of which set shows which concept, and in which split it is.

Knows the packages' layout, nothing of rendering or scenes.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aliases import further_names
from captions import TEMPLATE_WORDS
from grammar import countable, plural
from names import Concept, clean_name, code, icon_name, load_concepts, squash
from packages import BY_KEY, SETS, WORDS, ArtSet, unpack
from splits import contains_held, held_cell, held_concept, held_words


@dataclass
class Drawing:
    """One picture of one concept. ``split`` is ``train``, ``B``, ``C`` or ``near C``."""

    art: str
    icon: str
    concept: str
    family: str
    one_colour: bool
    split: str = "train"
    border: float = 1.0
    """How much of the outermost frame is transparent; filled in when it is rendered."""
    vector: bool = True


@dataclass
class Table:
    """Concepts, drawings and the held-out words: everything but pixels."""

    concepts: dict[str, Concept]
    drawings: list[Drawing]
    held_words: dict[str, list[str]]
    held_keywords: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By concept and language: the keywords split S took away from it."""

    def write(self, path: Path) -> None:
        """Write as JSON, a row a line."""
        concepts = {key: {**asdict(c), "cluster": c.cluster} for key, c in self.concepts.items()}
        parts = {
            "concepts": concepts,
            "held_words": self.held_words,
            "held_keywords": self.held_keywords,
        }
        lines = [f'"{k}": {json.dumps(v, ensure_ascii=False)}' for k, v in parts.items()]
        rows = ",\n".join(json.dumps(asdict(d), ensure_ascii=False) for d in self.drawings)
        lines.append(f'"drawings": [\n{rows}\n]')
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def collect(cache: Path) -> tuple[Table, list[bytes]]:
    """Download what is missing and return the table with the artwork (SVG or WebP) of each row."""
    packages = (*WORDS, *(art.package for art in SETS))
    folders = {package.name: unpack(package, cache) for package in packages}
    concepts, index = load_concepts(folders)
    table = Table(concepts, [], {})
    artwork: list[bytes] = []
    for art in SETS:
        for icon, picture in _icons(art, folders[art.package.name]):
            concept = _concept(art, icon, concepts, index)
            if concept is None:
                continue
            vector = picture.startswith(b"<svg")
            table.drawings.append(
                Drawing(art.key, icon, concept, art.family, art.one_colour, vector=vector)
            )
            artwork.append(picture)
    used = {drawing.concept for drawing in table.drawings}
    table.concepts = {key: concept for key, concept in concepts.items() if key in used}
    split(table)
    _add_names(table, folders["emojibase-data"])
    return table, artwork


def _icons(art: ArtSet, folder: Path) -> Iterable[tuple[str, bytes]]:
    if art.key == "fluent-emoji-3d":
        for path in sorted((folder / "assets").glob("*.webp")):
            yield path.stem, path.read_bytes()
        return
    data = json.loads((folder / "icons.json").read_text())
    for name, icon in data["icons"].items():
        if icon.get("hidden") or (art.key == "streamline-kameleon-color" and name.endswith("-duo")):
            continue
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", data.get("width", 16))
        height = icon.get("height", data.get("height", 16))
        side = max(width, height)
        view = f"{left - (side - width) / 2:g} {top - (side - height) / 2:g} {side} {side}"
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{view}" width="{side}" height="{side}" color="#000">{icon["body"]}</svg>'
        )
        yield name, svg.encode()


def _concept(
    art: ArtSet, icon: str, concepts: dict[str, Concept], index: dict[str, str]
) -> str | None:
    """Code of the emoji drawn, or the icon's name; a new name makes a new concept."""
    if art.key == "fluent-emoji-3d":
        key = code(icon)
        return key if key in concepts else None
    if art.kind == "emoji":
        bare = re.sub(r"-\d+$", "", icon) if art.key == "streamline-emojis" else icon
        return index.get(squash(bare))
    name = icon_name(icon, art.key)
    if name is None:
        return None
    name = clean_name(name)
    if key := index.get(squash(name)):
        return key if key in concepts else None
    if name not in concepts:
        concepts[name] = Concept(name)
        concepts[name].names["en"].append(name)
    return name


def split(table: Table) -> None:
    """Assign every drawing to its split and remove held-out words from all keywords."""
    concepts = table.concepts
    emoji = {key for key, concept in concepts.items() if concept.group >= 0}
    families = defaultdict(set)
    for drawing in table.drawings:
        families[concepts[drawing.concept].cluster].add(drawing.family)
    seen_heads: Counter[str] = Counter()
    unseen_heads: set[str] = set()
    for key in emoji:
        head = concepts[key].cluster.split()[-1]
        if held_concept(concepts[key].cluster):
            unseen_heads.add(head)
        else:
            seen_heads[head] += 1
    unseen_heads -= set(seen_heads)
    for drawing in table.drawings:
        concept = concepts[drawing.concept]
        named = concept.cluster
        if concept.group >= 0 and held_concept(named):
            drawing.split = "C"
        elif concept.group < 0 and unseen_heads & set(concept.names["en"][0].split()):
            drawing.split = "near C"
        elif held_cell(named, drawing.family, len(families[named])):
            drawing.split = "B"
    _hold_words(table)


def _hold_words(table: Table) -> None:
    unseen = {d.concept for d in table.drawings if d.split in ("C", "near C")}
    forbidden = {
        n for k in unseen for language in ("en", "ko") for n in table.concepts[k].names[language]
    }
    for language in ("en", "ko"):
        every = [w for c in table.concepts.values() for w in c.keywords[language]]
        named = [n for c in table.concepts.values() for n in c.names[language]]
        if language == "en":
            named += [plural(n) for n in named if countable(n)]
        named += [s for art in BY_KEY.values() for s in (*art.styles, *art.styles_ko)]
        named += TEMPLATE_WORDS[language].split()
        table.held_words[language] = held_words(every, language, named)
    for key, concept in table.concepts.items():
        for language in ("en", "ko"):
            held = frozenset(table.held_words[language])
            words = concept.keywords[language]
            kept = [w for w in words if not contains_held(w, held, language) and w not in forbidden]
            taken = [w for w in words if w in held]
            if taken:
                table.held_keywords.setdefault(key, {})[language] = taken
            concept.keywords[language] = kept
        held = frozenset(table.held_words["en"])
        concept.vague = [
            w for w in concept.vague if not contains_held(w, held, "en") and w not in forbidden
        ]


def _add_names(table: Table, emojibase: Path) -> None:
    for key, extra in further_names(table.concepts, emojibase).items():
        concept = table.concepts[key]
        for language, names in extra.items():
            held = frozenset(table.held_words[language])
            known = concept.names[language]
            fresh = [n for n in names if n not in known and not contains_held(n, held, language)]
            known.extend(dict.fromkeys(fresh))
            shown = set(known)
            concept.keywords[language] = [w for w in concept.keywords[language] if w not in shown]
