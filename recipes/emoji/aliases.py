"""Further names: the short everyday ones, and Korean ones for two-word icons.

Added after the splits are fixed; a name with a held-out word is left out again.
"""

import json
import re
from pathlib import Path

from names import Concept, code

EVERYDAY = {
    "grinning cat": {"en": ["smiling cat", "happy cat"], "ko": ["웃는 고양이"]},
    "grinning cat with smiling eyes": {"en": ["smiling cat"], "ko": ["웃는 고양이"]},
    "deciduous tree": {"en": ["tree", "green tree"], "ko": []},
    "evergreen tree": {"en": ["tree", "pine tree", "green tree"], "ko": ["나무"]},
    "automobile": {"en": ["car"], "ko": []},
    "castle": {"en": [], "ko": ["성"]},
    "robot": {"en": ["robot face"], "ko": ["로봇"]},
    "red heart": {"en": [], "ko": ["빨간 하트", "하트"]},
    "airplane": {"en": ["plane"], "ko": []},
    "smiling face": {"en": ["smiley"], "ko": []},
    "baguette bread": {"en": ["baguette"], "ko": ["바게트"]},
    "sun": {"en": [], "ko": ["해"]},
    "hot beverage": {"en": ["cup of coffee", "hot drink"], "ko": ["커피"]},
    "soccer ball": {"en": ["football"], "ko": ["축구공"]},
    "ghost": {"en": [], "ko": ["귀신"]},
}
"""Names people use that no source gives, by English name."""

_NO_NOUNS = re.compile(
    "zap|tada|date|birthday|party|sunny|smoking|mute|pour|feet|flipper|sound|disco|art|shopping|tea"
    "|city dusk|city sunset|earth (africa|asia|europe|americas)"
)
_WORDS = """
    head 머리, arrow 화살, sword 검, mask 가면, lightning 번개, ball 공, armor 갑옷,
    helmet 투구, gate 문, stone 돌, bag 가방, tree 나무, spiked 가시, bottle 병, flag 깃발,
    tower 탑, target 과녁, face 얼굴, hat 모자, water 물, gun 총, hand 손, flower 꽃, card 카드,
    metal 금속, paper 종이, boot 부츠, leaf 잎, dice 주사위, evil 사악한, shell 껍데기,
    spiral 나선, burning 불타는, bridge 다리, claw 발톱, book 책, helm 투구, knife 칼,
    tentacle 촉수, broken 부서진, king 왕, heavy 무거운, triple 세겹, round 둥근, double 이중,
    necklace 목걸이, magic 마법, box 상자, sea 바다, blade 칼날, tank 탱크, fishing 낚시,
    orb 구슬, crossed 교차한, crystal 수정, falling 떨어지는, wooden 나무, tail 꼬리,
    cracked 금이 간, dripping 떨어지는, love 사랑, pirate 해적, chain 사슬, spear 창, bowl 그릇,
    diamond 다이아몬드, saw 톱, bow 활, trap 덫, explosion 폭발, field 들판, pot 냄비,
    flame 불꽃, glass 유리, egyptian 이집트, flying 나는, stick 막대기, open 열린, horn 뿔,
    boat 배, wall 벽, grenade 수류탄, button 단추, half 반쪽, cannon 대포, car 자동차,
    queen 여왕, chest 상자, saber 사브르, earth 지구, empty 빈, paw 발바닥, gold 금,
    potion 물약, pipe 파이프, sharp 날카로운, winged 날개 달린, wings 날개, lantern 등불,
    pyramid 피라미드, wave 파도, waves 파도, forest 숲, temple 사원, plant 식물, chess 체스,
    fork 포크, moon 달, frozen 얼어붙은, golem 골렘, holy 성스러운, rope 밧줄, skeleton 해골,
    machine 기계, missile 미사일, shiny 빛나는, spiky 뾰족한, viking 바이킹, stairs 계단,
    apple 사과, arm 팔, lamp 램프, belt 벨트, fangs 송곳니, big 큰, cage 새장, knight 기사,
    mace 철퇴, shadow 그림자, tablet 태블릿, flask 플라스크, bullet 총알, closed 닫힌,
    coffee 커피, earrings 귀걸이, wand 지팡이, swords 검, padlock 자물쇠, golf 골프,
    square 사각형, eclipse 일식, gem 보석, flaming 불타는, trident 삼지창, floating 떠 있는,
    truck 트럭, shirt 셔츠, road 길, hot 뜨거운, human 사람, fence 울타리, iron 철, meat 고기,
    medal 메달, money 돈, needle 바늘, old 오래된, poison 독, shoulder 어깨, totem 토템,
    log 통나무, nails 못, barrel 통, glove 장갑, gloves 장갑, beach 해변, beer 맥주, bull 황소,
    meteor 유성, cape 망토, cave 동굴, cup 컵, coins 동전, crescent 초승달, staff 지팡이,
    bones 뼈, nest 둥지, crowned 왕관 쓴, shield 방패, skull 해골, heart 하트, star 별, fire 불,
    eye 눈, door 문, ring 반지, bomb 폭탄, fish 물고기, axe 도끼, bucket 양동이, egg 알,
    sun 태양, crown 왕관, wood 나무, ice 얼음, hammer 망치, bat 박쥐, brick 벽돌, dragon 용,
    spider 거미, wing 날개, bird 새, house 집, key 열쇠, wheel 바퀴, cloud 구름, mushroom 버섯,
    robot 로봇, dagger 단검, ship 배, ninja 닌자, snake 뱀, alien 외계인, eyes 눈, dog 개,
    battery 배터리, gear 톱니바퀴, mouth 입, jar 항아리, hook 갈고리, bone 뼈, ribbon 리본,
    bug 벌레, hole 구멍, candle 양초, leg 다리, rose 장미, chair 의자, rocket 로켓, frog 개구리,
    glasses 안경, dress 드레스, banana 바나나, butterfly 나비, castle 성, chicken 닭,
    eagle 독수리, worm 지렁이, elf 엘프, fox 여우, foot 발, pizza 피자, cat 고양이, mirror 거울,
    mountain 산, vampire 뱀파이어, scroll 두루마리, shark 상어, wolf 늑대, bell 종, boar 멧돼지,
    bread 빵, cactus 선인장, camera 카메라, crab 게, deer 사슴, duck 오리, ear 귀, fairy 요정,
    feather 깃털, spoon 숟가락, ghost 유령, goblin 고블린, guitar 기타, horse 말, tongue 혀,
    magnet 자석, nose 코, lion 사자, tiger 호랑이, bear 곰, monkey 원숭이, elephant 코끼리,
    owl 올빼미, whale 고래, penguin 펭귄, turtle 거북이, snail 달팽이, bee 벌, ant 개미,
    scorpion 전갈, octopus 문어, pig 돼지, cow 소, sheep 양, goat 염소, mouse 쥐, rat 쥐,
    rabbit 토끼, crow 까마귀, demon 악마, devil 악마, angel 천사, witch 마녀, wizard 마법사,
    giant 거인, troll 트롤, orc 오크, unicorn 유니콘, mermaid 인어, cherry 체리, lemon 레몬
"""
_KOREAN = dict(pair.split(maxsplit=1) for pair in _WORDS.replace("\n", " ").split(",") if pair)


def korean_icon_name(name: str) -> str | None:
    """Word-by-word Korean of an icon's name of two or three known words, else None."""
    words = name.split()
    if not 1 <= len(words) <= 3 or any(word not in _KOREAN for word in words):
        return None
    korean = [_KOREAN[word].strip() for word in words]
    return None if len(set(korean)) < len(korean) else " ".join(korean)


def further_names(concepts: dict[str, Concept], emojibase: Path) -> dict[str, dict[str, list[str]]]:
    """Names to add, by concept and language; none is another concept's name."""
    taken = {name for concept in concepts.values() for name in concept.names["en"]}
    short = _short_names(emojibase)
    found: dict[str, dict[str, list[str]]] = {}
    for key, concept in concepts.items():
        first = concept.names["en"][0]
        if concept.group < 0:
            korean = korean_icon_name(first)
            found[key] = {"en": [], "ko": [korean] if korean else []}
            continue
        words = {
            w for text in (*concept.names["en"], *concept.keywords["en"]) for w in text.split()
        }
        names = [n for n in short.get(key, []) if n not in taken and set(n.split()) <= words]
        if concept.group in (0, 1, 8):  # short names of faces, gestures and signs are often verbs
            names = []
        korean = [re.sub(" 얼굴$", "", n) for n in concept.names["ko"]]
        if concept.group != 3 and concept.subgroup not in (12, 13):
            korean = []
        extra = EVERYDAY.get(first, {"en": [], "ko": []})
        found[key] = {"en": [*extra["en"], *names], "ko": [*extra["ko"], *korean]}
    return found


def _clumsy(short: str, full: str) -> bool:
    """Whether a short name is the full one reshuffled (``pen fountain``), or no noun."""
    reshuffled = " " in short and set(short.split()) <= set(full.split())
    return bool(_NO_NOUNS.fullmatch(short)) or (reshuffled and short not in full)


def _short_names(emojibase: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for source in ("emojibase", "joypixels", "github"):
        path = emojibase / f"en/shortcodes/{source}.json"
        for text, names in json.loads(path.read_text()).items():
            for name in [names] if isinstance(names, str) else names:
                plain = name.replace("_", " ")
                known = found.setdefault(code(text), [])
                if re.fullmatch(r"[a-z][a-z ]{2,}", plain) and plain not in known:
                    known.append(plain)
    return found
