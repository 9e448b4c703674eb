"""Articles, plurals and particles: the little grammar captions need, English and Korean.

Knows words alone; what is never sure (is ``tennis`` countable?) is decided towards leaving out.
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MASS = _words("""
    rice bread butter money salt honey milk tennis badminton baseball basketball football volleyball
    softball lacrosse cricket hockey golf judo fencing skiing boxing water wood hair clothing music
    luggage fire smoke snow fog ice rain lightning wind mate tea sake sushi ramen spaghetti curry
    bacon meat poultry beef cheese garlic ginger corn seaweed oil coffee juice mahjong billiards
    soap paper dna tears om zzz poo mud gold up down hot cold love evil anger luck news speech santa
    claus fuji liberty kaaba aries taurus gemini cancer leo virgo libra scorpio sagittarius
    capricorn aquarius pisces ophiuchus fleur-de-lis cash-outs health recycling blood trousers jeans
    shorts glasses goggles scissors chopsticks binoculars headphones hands feet eyes ears lips lungs
    teeth bones wheelchair-symbol eight asleep love noise mail data biotech electricity engineering
    statistics information privacy support feedback china japan
""")
_GERUND_NOUNS = _words("""
    ring king wing string building painting ceiling wedding earring swing spring sling pudding
    dumpling thing duckling sibling drawing clothing railing viking sapling seedling yearling
""")
_SINGULAR_S = re.compile(
    r"(ss|us|is|bus|lens|gas|cactus|chess|compass|atlas|canvas|pegasus|bass|rhinoceros)$"
)
_HEADS = _words("""
    sign symbol heart button circle square triangle diamond mark star cross wheel bubble balloon
    face ring trident box chart note notes fork note card crown hand loop
""")
_PREPOSITION = re.compile(
    r" (with|of|in|on|for|at|from|behind|over|without|under|to|not|holding|and) "
)
_IRREGULAR = {
    "man": "men", "woman": "women", "person": "people", "child": "children", "mouse": "mice",
    "foot": "feet", "tooth": "teeth", "leaf": "leaves", "knife": "knives", "wolf": "wolves",
    "loaf": "loaves", "goose": "geese", "ox": "oxen", "fish": "fish", "sheep": "sheep",
    "deer": "deer", "bison": "bison", "dice": "dice", "potato": "potatoes", "tomato": "tomatoes",
    "mango": "mangoes", "elf": "elves", "scarf": "scarves", "salmon": "salmon", "squid": "squid",
    "series": "series", "species": "species", "aircraft": "aircraft", "cactus": "cacti",
    "half": "halves", "shelf": "shelves", "thief": "thieves", "calf": "calves", "hero": "heroes",
}  # fmt: skip


def head(name: str) -> str:
    """The noun a name turns on: ``face`` of ``face with tears of joy``."""
    return _PREPOSITION.split(name)[0].split()[-1]


def countable(name: str, symbol: bool = False) -> bool:
    """Whether ``a`` or a number can stand before the name.

    Args:
        name: English name, lower case.
        symbol: whether it is an emoji of the symbols group, whose names are often no nouns.
    """
    noun = head(name)
    if re.match(r"(man|woman|person|child|baby|boy|girl)\b", name):
        return True
    if noun.endswith("ed") and noun not in ("bed", "seed", "weed", "sled", "shed", "reed"):
        return False
    if noun in _MASS or name in _MASS or re.search(r"\d", name):
        return False
    if symbol and noun not in _HEADS:
        return False
    if (
        noun.endswith("ing")
        and noun not in _GERUND_NOUNS
        and not re.match(r"(man|woman|person)", name)
    ):
        return False
    return not noun.endswith("s") or bool(_SINGULAR_S.search(noun))


def article(phrase: str) -> str:
    """Put ``a`` or ``an`` before a phrase, by its sound."""
    vowel = re.match(r"[aeiou]|hour|heir|honest|x-ray|mp3|atm\b|sos\b", phrase)
    consonant = re.match(r"uni|use|usb|ufo\b|one\b|once|eu|ukulele|utensil|utilit|ure|u-", phrase)
    unlike = re.match(r"unin|unim|unid", phrase)
    return f"an {phrase}" if vowel and (unlike or not consonant) else f"a {phrase}"


def plural(name: str) -> str:
    """Plural of a countable name: ``loaves of bread``, ``cat faces``."""
    match = _PREPOSITION.search(name)
    start, rest = (name[: match.start()], name[match.start() :]) if match else (name, "")
    *before, noun = start.split()
    if (
        re.match(r"(man|woman|person)$", start.split()[0])
        and len(before) > 0
        and noun not in _IRREGULAR
    ):
        first, *others = start.split()  # "man raising hand", "woman cook"
        if others[0].endswith("ing"):
            return " ".join([_IRREGULAR[first], *others]) + rest
    if noun in _IRREGULAR:
        noun = _IRREGULAR[noun]
    elif noun.endswith("man") and noun not in ("human", "talisman"):
        noun = noun[:-2] + "en"
    elif re.search(r"(s|x|z|ch|sh)$", noun):
        noun += "es"
    elif re.search(r"[^aeiou]y$", noun):
        noun = noun[:-1] + "ies"
    else:
        noun += "s"
    return " ".join([*before, noun]) + rest


def has_final(word: str) -> bool:
    """Whether a Korean word ends in a consonant (batchim), which decides its particles."""
    last = word.rstrip()[-1]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28 > 0
    return last.lower() in "lmnr013678"


def joined(first: str, second: str) -> str:
    """``first`` 와/과 ``second``."""
    return f"{first}{'과' if has_final(first) else '와'} {second}"


def subject(word: str) -> str:
    """``word`` with 이/가."""
    return word + ("이" if has_final(word) else "가")
