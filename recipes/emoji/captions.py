"""Captions of scenes, in English and Korean, from the parts of a scene.

A caption says nothing the picture does not show. Knows no pixels; draws from the given `Random`.
"""

import re
from dataclasses import dataclass
from random import Random

from grammar import article, countable, joined, plural, subject

KOREAN_COLOURS = {
    "red": ("빨간", "빨간색"),
    "orange": ("주황색",),
    "yellow": ("노란", "노란색"),
    "green": ("초록색", "녹색"),
    "teal": ("청록색",),
    "blue": ("파란", "파란색"),
    "purple": ("보라색",),
    "pink": ("분홍색",),
    "brown": ("갈색",),
    "black": ("검은", "검은색"),
    "white": ("하얀", "흰색", "흰"),
    "gray": ("회색",),
}
_COLOUR_WORDS = re.compile(
    r"\b(red|orange|yellow|green|teal|blue|light blue|purple|pink|brown|black|white|gray|grey|"
    r"dark|light|golden|black and white)\b "
)
_KOREAN_COLOUR_WORDS = re.compile(
    r"(^|\s)(빨간|빨강|주황|노란|노랑|초록|녹|파란|파랑|보라|분홍|갈|검은|검정|흰|하얀|회|하늘|연한|밝은)색?(?=\s)"
)
NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five"}
KOREAN_NUMBERS = {2: "두", 3: "세", 4: "네", 5: "다섯"}
TEMPLATE_WORDS = {
    "en": """a an and the on of in to with background icon style drawing left right above below
        next beside front behind over under small large two three four five plain picture emoji
        silhouette red orange yellow green teal blue purple pink brown black white gray""",
    "ko": """빨간 주황 노란 초록 녹색 청록 파란 보라 분홍 갈색 검은 검정 흰 하얀 회색 배경
        아이콘 스타일 그림 왼쪽 오른쪽 위에 아래에 옆에 앞에 뒤에
        있는 있다 작은 큰 두 세 네 다섯 개 마리 명 이모지""",
}
"""What captions say around the names of things, colours included."""


@dataclass(frozen=True)
class Shown:
    """One thing in a scene, as words."""

    name: str
    """In the scene's language."""
    icon: bool
    """From an icon set: its name need not be a noun, so captions say ``icon``."""
    style: str
    colour: str | None = None
    """English colour word, for recoloured glyphs."""
    symbol: bool = False
    counter: str = "개"
    keywords: tuple[str, ...] = ()
    usual: bool = True
    """Whether its style may be left unsaid."""


def without_colour(name: str, language: str) -> str:
    """A name fit for a glyph in any colour: ``heart`` of ``red heart``."""
    pattern = _COLOUR_WORDS if language == "en" else _KOREAN_COLOUR_WORDS
    stripped = pattern.sub(" ", name).strip()
    return " ".join(stripped.split()) or name


def phrase(shown: Shown, size: str = "") -> str:
    """English noun phrase with its article: ``a red dragon head icon``, ``paw prints``."""
    words = " ".join(w for w in (size, shown.colour, shown.name) if w)
    if shown.icon:
        return article(f"{words} icon")
    return article(words) if countable(shown.name, shown.symbol) else words


def korean_phrase(shown: Shown, rng: Random, size: str = "") -> str:
    """Korean noun phrase: ``빨간 하트 아이콘``."""
    colour = rng.choice(KOREAN_COLOURS[shown.colour]) if shown.colour else ""
    return " ".join(w for w in (size, colour, shown.name, "아이콘" if shown.icon else "") if w)


def background_words(colour: str, language: str, rng: Random) -> str:
    """``a blue background`` or ``파란 배경``."""
    if language == "ko":
        return f"{rng.choice(KOREAN_COLOURS[colour])} 배경"
    return article(f"{colour} background")


def single(shown: Shown, background: str | None, language: str, rng: Random) -> str:
    """Caption of one drawing in its own colours; ``background`` None leaves it unsaid."""
    words = _head(shown, language, rng)
    style = shown.style
    if language == "ko":
        forms = [f"{words}, {style} 스타일", f"{style} 스타일의 {words}", words, f"{words} 그림"]
        text = rng.choices(forms, (4, 2, 5, 1) if shown.usual else (4, 2, 0, 0))[0]
        if background is None:
            return text
        where = background_words(background, language, rng)
        return rng.choice([f"{where}의 {text}", f"{where}에 있는 {text}", f"{text}, {where}"])
    named = article(words) if countable(words, shown.symbol) and words == shown.name else words
    if shown.icon:
        forms = [f"{words} icon", f"{words} icon, {style} style", article(f"{words} icon"), words]
        text = rng.choices(forms, (3, 4, 2, 1))[0]
    else:
        drawing = article(f"{style} drawing of {named}")
        forms = [f"{words}, {style} style", f"{named}, {style} style", drawing,
                 f"{words}, {style}", words, named]  # fmt: skip
        text = rng.choices(forms, (3, 2, 1, 1, 3, 3) if shown.usual else (3, 2, 1, 1, 0, 0))[0]
    if background is None:
        return text
    where = background_words(background, language, rng)
    return f"{text}, on {where}" if "," in text else f"{text} on {where}"


def _head(shown: Shown, language: str, rng: Random) -> str:
    """The name, or two to four keywords, or the name with keywords."""
    form = rng.random()
    if form < 0.72 or len(shown.keywords) < 2:
        return shown.name
    tags = rng.sample(shown.keywords, min(len(shown.keywords), rng.randint(2, 4)))
    if form < 0.80:
        return ", ".join([shown.name, *tags[:2]])
    return (" " if language == "ko" or rng.random() < 0.5 else ", ").join(tags)


def glyph(shown: Shown, background: str, language: str, rng: Random) -> str:
    """Caption of one recoloured glyph: a colour on a colour."""
    where = background_words(background, language, rng)
    if language == "ko":
        what = korean_phrase(shown, rng)
        forms = [f"{where}의 {what}", f"{where} 위의 {what}", f"{what}, {where}"]
        if background == "white":
            forms += [what, what]
        return rng.choice(forms)
    icon = article(f"{shown.colour} {shown.name} icon")
    forms = [f"{icon} on {where}"] * 4 + [
        f"{shown.colour} {shown.name} icon on {where}",
        f"{shown.name} icon, {shown.colour} on {background}",
        f"{phrase(shown)} on {where}",
        f"{where} with {icon}",
        f"{article(f'{shown.colour} {shown.style} of {phrase(_plain(shown))}')} on {where}"
        if shown.style == "silhouette" else f"{icon} on {where}, {shown.style} style",
    ]  # fmt: skip
    if background == "white":
        forms += [icon, icon, f"{shown.colour} {shown.name}, {shown.style} style"]
    return rng.choice(forms)


def _plain(shown: Shown) -> Shown:
    return Shown(shown.name, False, shown.style, symbol=shown.icon or shown.symbol)


RELATIONS = {
    "left": ("to the left of", "to the right of"),
    "above": ("above", "below"),
    "front": ("in front of", "behind"),
    "next": ("next to", "next to"),
}
"""Arrangement: the words for (first, second) and for (second, first)."""
KOREAN_RELATIONS = {
    "left": ("왼쪽에", "오른쪽에"),
    "above": ("위에", "아래에"),
    "front": ("앞에", "뒤에"),
    "next": ("옆에", "옆에"),
}


def pair(
    first: Shown, second: Shown, relation: str, background: str | None, language: str, rng: Random
) -> str:
    """Caption of two things; ``first`` is the one on the left, above or in front.

    If they are not in a usual style, they have to be in the same.
    """
    mirrored = rng.random() < 0.5
    one, two = (second, first) if mirrored else (first, second)
    if language == "ko":
        a, b = korean_phrase(one, rng), korean_phrase(two, rng)
        where = KOREAN_RELATIONS[relation][mirrored]
        forms = [f"{b} {where} 있는 {a}", f"{b} {where} {a}", f"{b} {where} {subject(a)} 있다"]
        if relation == "next":
            forms.append(joined(a, b))
        text = _styled(rng.choice(forms), first, language)
        return (
            text if background is None else f"{text}, {background_words(background, language, rng)}"
        )
    words = RELATIONS[relation][mirrored]
    forms = [f"{phrase(one)} {words} {phrase(two)}"] * 4
    if relation == "next":
        forms.append(f"{phrase(one)} and {phrase(two)}")
        forms.append(f"{phrase(one)} beside {phrase(two)}")
    if relation == "above" and not mirrored:
        forms.append(f"{phrase(one)} over {phrase(two)}")
    if relation == "above" and mirrored:
        forms.append(f"{phrase(one)} under {phrase(two)}")
    text = _styled(rng.choice(forms), first, language)
    return (
        text if background is None else f"{text}, on {background_words(background, language, rng)}"
    )


def _styled(text: str, shown: Shown, language: str) -> str:
    """Names the style of things in their own colours, unless it is a usual one."""
    if shown.usual or shown.colour:
        return text
    return f"{text}, {shown.style} {'스타일' if language == 'ko' else 'style'}"


def sizes(small: Shown, large: Shown, background: str | None, language: str, rng: Random) -> str:
    """Caption of a small and a large thing side by side."""
    if language == "ko":
        text = joined(korean_phrase(small, rng, "작은"), korean_phrase(large, rng, "큰"))
        if rng.random() < 0.5:
            text = joined(korean_phrase(large, rng, "큰"), korean_phrase(small, rng, "작은"))
    else:
        a, b = phrase(small, "small"), phrase(large, "large")
        text = f"{a} and {b}" if rng.random() < 0.5 else f"{b} and {a}"
    text = _styled(text, small, language)
    if background is None:
        return text
    joint = ", " if language == "ko" else ", on "
    return text + joint + background_words(background, language, rng)


def several(shown: Shown, number: int, background: str | None, language: str, rng: Random) -> str:
    """Caption of ``number`` copies of one drawing."""
    if language == "ko":
        text = f"{korean_phrase(shown, rng)} {KOREAN_NUMBERS[number]} {shown.counter}"
        if rng.random() < 0.3 or not shown.usual:
            text = f"{text}, {shown.style} 스타일" if not shown.colour else text
        return (
            text
            if background is None
            else f"{background_words(background, language, rng)}의 {text}"
        )
    name = f"{shown.name} icons" if shown.icon else plural(shown.name)
    text = " ".join(w for w in (NUMBERS[number], shown.colour, name) if w)
    if not shown.colour and (rng.random() < 0.3 or not shown.usual):
        text = f"{text}, {shown.style} style"
    if background is None:
        return text
    return f"{text}{',' if ',' in text else ''} on {background_words(background, language, rng)}"
