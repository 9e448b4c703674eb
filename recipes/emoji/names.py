"""What each drawing shows: concepts, their English and Korean names and keywords, cleaned.

An emoji concept is a Unicode emoji; an icon whose name is an emoji's name joins that concept.
Knows nothing of pixels, splits or captions.
"""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

DROPPED_GROUPS = {2, 9}
"""emojibase groups left out: components (skin tones, hair) and flags."""
DROPPED_SUBGROUPS = {30, 85, 94, 95, 97}
"""Families and couples, arrows, keycaps, letter and ideograph buttons, flags."""
DROPPED_LABELS = re.compile(
    r"o.clock|-thirty|facing right|middle finger|^flag|^keycap|skin tone|"
    r"^(copyright|registered|trade mark|information)$|medical symbol|input "
)

_BLOCKED = frozenset(
    re.split(
        r"\s+",
        """amputation bleeding blood bloody brain-dump brain-leak corpse decapitation decapitated
        dead severed guillotine hanged hangman gallows impaled suicide overdose overkill
        wound wounds gore gibs fetus embryo vomiting turd torture murder slavery
        executioner headshot head-shot half-dead flesh fleshy infested gunshot chopped
        cannibal sadist noose death-zone iron-maiden drowning nailed-foot nailed-head
        rape breast sperm pregnancy cannabis hemp joint drugs stool whip whiplash ak47
        ak47u uzi mp5 mp5k p90 c96 glock walther-ppk lee-enfield carpet-bombing nazi
        iron-cross eskimo gypsy pimp harem striptease crucifix crucified cement-shoes
        oppression freemasonry logo pokeball wall-e r2d2 spongebob predator vespa
        wii-remote mac-signal windows-coding rapper google android android-os bbc debian
        dribbble ipad iphone kindle linux nook reddit steam stumbleupon vip vlc
        wikipedia icons8 icons8-cup nfc-sign fitbit go-pro blackberry osx usb bluetooth
        bitcoin litecoin namecoin ripple visa adobe amazon lego batman superman
        spiderman deathcab diablo-skull pac-man pokecog companion-cube tardis triforce
        star-wars death-star jedi stormtrooper portal facebook css html java c-plus-plus
        kindle-hold oculus xbox jenga jason-mask staryu""",
    )
)
"""Icons left out: gore, drugs, guns by model, slurs, brands and other people's characters."""
_ABSTRACT = re.compile(
    r"^abstract-?\d|^(perspective-dice|inverted-dice)|-\d+-(clubs|diamonds|hearts|spades)$"
)
_TAROT = re.compile(r"^tarot-\d+-(the-)?")
_CATEGORY = re.compile(
    r"^(fruit|instrument-classical|instrument|vegetables|shape|space|science-fiction|science|seafood|"
    r"fast-food|body-care|office|weather|circus|party|amusement-park|outdoors|kitchenware|"
    r"medical-instrument|medical-specialty|natural-disaster|aircraft|animal-products|accounting|"
    r"astronomy|board-game|business|casino|card-game|entertainment|modern-music|modern|concert|"
    r"design-tool|martial-arts|make-up|locker-room|photography-equipment|public-service|railroad|"
    r"show|soft-drinks|night-club|night|single|lab|content|adventure)-(?=[a-z])"
)


@dataclass
class Concept:
    """One thing that can be drawn, with the words for it."""

    key: str
    group: int = -1
    subgroup: int = -1
    names: dict[str, list[str]] = field(default_factory=lambda: {"en": [], "ko": []})
    keywords: dict[str, list[str]] = field(default_factory=lambda: {"en": [], "ko": []})
    vague: list[str] = field(default_factory=list)
    """Loose English keywords, to be used rarely."""

    @property
    def cluster(self) -> str:
        """The name without man, woman or person: what the splits hold out together."""
        return cluster(self.names["en"][0])


def cluster(name: str) -> str:
    """Name of a concept without man, woman or person, so that all three share a split."""
    words = re.sub(r"\b(wo)?m[ae]n\b|\b(person|people)\b", " ", name)
    return " ".join(re.sub(r"\b(with|in)\s*$|^\s*with( a)?\b", " ", words).split()) or "person"


def squash(name: str) -> str:
    """Letters and digits alone: ``love-letter``, ``Love letter``, ``loveletter`` match."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", plain.lower())


def code(text: str) -> str:
    """Code points in lower-case hexadecimal without variation selectors: ``1f431``."""
    return "-".join(part for part in text.lower().split("-") if part != "fe0f")


def clean_name(name: str) -> str:
    """Lower case, straight quotes, no brackets; ``man: beard`` becomes ``man with beard``."""
    for curly, straight in (("’", "'"), ("‘", "'"), ("“", ""), ("”", ""), ("!", ""), ("·", " ")):
        name = name.replace(curly, straight)
    name = re.sub(r"\(.*?\)", "", name).lower()
    name = re.sub(r"^(person|man|woman): bald", r"bald \1", name)
    name = re.sub(r"^(person|man|woman): beard", r"\1 with a beard", name)
    name = re.sub(r"^(person|man|woman): ", r"\1 with ", name)
    return " ".join(re.sub(r"[:;“”\"]", " ", name).split()).replace(" ,", ",")


def clean_korean(name: str) -> str:
    """The same for Korean; ``남자: 흰 머리`` becomes ``흰 머리 남자``."""
    name = re.sub(r"\(.*?\)", "", name)
    if match := re.match(r"^(\S+): (.+)$", name):
        name = f"{match[2]} {match[1]}"
    return " ".join(re.sub(r"[:;“”\"!‘’·]", " ", name).split()).lower()


def icon_name(slug: str, art: str) -> str | None:
    """Readable name of an icon, or None if it is blocked: a brand, gore or an abstract shape."""
    words = slug.split("-")
    for blocked in _BLOCKED:
        if blocked == slug or ("-" not in blocked and blocked in words):
            return None
        if "-" in blocked and re.search(rf"(^|-){blocked}($|-)", slug):
            return None
    if _ABSTRACT.search(slug):
        return None
    name = _TAROT.sub("", slug)
    if art == "streamline-ultimate-color":
        name = _CATEGORY.sub("", name)
    name = re.sub(r"(-\d+)+$|-duo$|-(\d+)-duo$", "", name)
    name = re.sub(r"^card-(\w+)-(\w+)$", r"\1-of-\2", name)
    if re.search(r"\d", name) and not re.match(r"^3d-|.*-3d", name):
        return None
    return name.replace("-", " ") if len(name) > 2 else None


def load_concepts(folders: dict[str, Path]) -> tuple[dict[str, Concept], dict[str, str]]:
    """Emoji concepts by code, and an index from squashed names of all kinds to codes.

    Args:
        folders: unpacked package folders by npm name.
    """
    emojibase = folders["emojibase-data"]
    concepts: dict[str, Concept] = {}
    index: dict[str, str] = {}
    english = json.loads((emojibase / "en/data.json").read_text())
    for entry in english:
        label = entry["label"]
        if entry.get("group") in (None, *DROPPED_GROUPS) or DROPPED_LABELS.search(label.lower()):
            continue
        if entry.get("subgroup") in DROPPED_SUBGROUPS:
            continue
        key = code(entry["hexcode"])
        concept = Concept(key, entry["group"], entry["subgroup"])
        _extend(concept.names["en"], [clean_name(label)])
        _extend(concept.keywords["en"], map(clean_name, entry.get("tags", [])))
        concepts[key] = concept
    for entry in json.loads((emojibase / "ko/data.json").read_text()):
        if concept := concepts.get(code(entry["hexcode"])):
            _extend(concept.names["ko"], [clean_korean(entry["label"])])
            _extend(concept.keywords["ko"], map(clean_korean, entry.get("tags", [])))
    _add_cldr(concepts, folders)
    _add_loose(concepts, folders)
    for concept in concepts.values():
        _tidy(concept)
    for names in _name_sources(concepts, folders):
        for name, key in names:
            if key in concepts:
                index.setdefault(squash(name), key)
    return concepts, index


def _add_cldr(concepts: dict[str, Concept], folders: dict[str, Path]) -> None:
    for package, part in (
        ("cldr-annotations-full", "annotations"),
        ("cldr-annotations-derived-full", "annotationsDerived"),
    ):
        for language, clean in (("en", clean_name), ("ko", clean_korean)):
            path = folders[package] / part / language / "annotations.json"
            for text, entry in json.loads(path.read_text())[part]["annotations"].items():
                concept = concepts.get(code("-".join(f"{ord(c):x}" for c in text)))
                if concept is None:
                    continue
                _extend(concept.names[language], map(clean, entry.get("tts", [])))
                _extend(concept.keywords[language], map(clean, entry.get("default", [])))


def _add_loose(concepts: dict[str, Concept], folders: dict[str, Path]) -> None:
    loose = json.loads((folders["emojilib"] / "dist/emoji-en-US.json").read_text())
    plain = json.loads((folders["unicode-emoji-json"] / "data-by-emoji.json").read_text())
    for text, entry in plain.items():
        if concept := concepts.get(code("-".join(f"{ord(c):x}" for c in text))):
            _extend(concept.names["en"], [clean_name(entry["name"])])
    for text, words in loose.items():
        if concept := concepts.get(code("-".join(f"{ord(c):x}" for c in text))):
            known = {*concept.names["en"], *concept.keywords["en"]}
            words = [clean_name(word.replace("_", " ")) for word in words]
            concept.vague = [w for w in dict.fromkeys(words) if re.fullmatch(r"[a-z' -]{3,}", w)
                             and w not in known]  # fmt: skip


def _tidy(concept: Concept) -> None:
    full = {name.replace(" with ", " ") for name in concept.names["en"] if " with " in name}
    names = concept.names["en"] = [name for name in concept.names["en"] if name not in full]
    if concept.group == 3 and names[0].endswith(" face"):
        _extend(names, [names[0].removesuffix(" face")])
    if names[0] == "red heart":
        _extend(names, ["heart"])
    for language in ("en", "ko"):
        taken = set(concept.names[language])
        pattern = r"[a-z][a-z' -]+" if language == "en" else r"[가-힣][가-힣 ]*"
        words = [w for w in concept.keywords[language] if w not in taken]
        concept.keywords[language] = [w for w in words if re.fullmatch(pattern, w)]
        concept.names[language] = [
            n for n in concept.names[language] if len(n) > 1 or language == "ko"
        ]
    concept.keywords["en"] = [w for w in concept.keywords["en"] if len(w) > 2]


def _name_sources(
    concepts: dict[str, Concept], folders: dict[str, Path]
) -> Iterable[list[tuple[str, str]]]:
    """Lists of (name, code), the most trusted first."""
    yield [(concept.names["en"][0], key) for key, concept in concepts.items()]
    for art in ("noto", "twemoji", "fluent-emoji-flat"):
        folder = folders[f"@iconify-json/{art}"]
        chars = json.loads((folder / "chars.json").read_text())
        codes = {name: code(text) for text, name in chars.items()}
        aliases = json.loads((folder / "icons.json").read_text()).get("aliases", {})
        yield list(codes.items())
        yield [(n, codes[a["parent"]]) for n, a in aliases.items() if a["parent"] in codes]
    yield [(name, key) for key, concept in concepts.items() for name in concept.names["en"]]
    yield [(_unicode_name(key), key) for key in concepts]
    shortcodes = folders["emojibase-data"] / "en/shortcodes"
    for source in ("joypixels", "cldr", "iamcal", "github", "emojibase"):
        path = shortcodes / f"{source}.json"
        if path.exists():
            pairs = json.loads(path.read_text()).items()
            yield [(n, code(h)) for h, v in pairs for n in ([v] if isinstance(v, str) else v)]


def _unicode_name(key: str) -> str:
    return unicodedata.name(chr(int(key, 16)), "") if "-" not in key else ""


def _extend(target: list[str], words: Iterable[str]) -> None:
    target.extend(word for word in dict.fromkeys(words) if word and word not in target)
