import io
import pickle
import re
from collections import Counter

import alike
import numpy as np
import pytest
from alike import TOGETHER, Alike
from atlas import Atlas
from captions import KOREAN_COLOURS
from PIL import Image
from scenes import KOREAN, SHARES, Scenes
from splits import (
    COLOURS,
    contains_held,
    held_colour,
    held_colour_pairs,
    held_relation,
    trained_order,
)

from unclip.data.source import BatchSource
from unclip.errors import DataError

COUNT = 5000


@pytest.fixture(scope="module")
def source(packed) -> Scenes:
    return Scenes(packed)


@pytest.fixture(scope="module")
def made(source):
    return [source.scene(index) for index in range(COUNT)]


def nearest(colour) -> str:
    distance = {name: np.abs(np.subtract(colour, rgb)).sum() for name, rgb in COLOURS.items()}
    return min(distance, key=distance.__getitem__)


def names(colour: str, scene) -> bool:
    words = (colour,) if scene.language == "en" else KOREAN_COLOURS[colour]
    return any(word in scene.caption for word in words)


def test_is_a_source_of_batches(source):
    assert isinstance(source, BatchSource)
    batch = source.batch([3, 2**39])
    assert batch.images.shape == (2, 64, 64, 3)
    assert batch.images.dtype == np.uint8
    assert batch.keys == ("scene/3", f"scene/{2**39}")
    sample = source.sample(3)
    assert sample.captions == (batch.captions[0],)
    assert np.array_equal(sample.image(), batch.images[0])


def test_an_index_is_a_scene_whatever_was_asked_before(source, packed):
    other = pickle.loads(pickle.dumps(Scenes(packed)))
    indices = [5, 700, 6, 5]
    forward, backward = source.batch(indices), other.batch(indices[::-1])
    assert np.array_equal(forward.images, backward.images[::-1])
    assert forward.captions == backward.captions[::-1]


def test_seeds_differ(source, packed):
    assert source.batch(range(8)).captions != Scenes(packed, seed=1).batch(range(8)).captions


def test_shares(made):
    languages = Counter(scene.language for scene in made)
    assert languages["ko"] / COUNT > 0.15
    kinds = Counter(scene.kind for scene in made)
    assert abs(kinds["glyph"] / COUNT - SHARES["glyph"] / 100) < 0.02
    assert abs(kinds["pair"] / COUNT - SHARES["pair"] / 100) < 0.02
    for kind in ("emoji", "background", "pair", "glyph"):
        korean = sum(scene.language == "ko" and scene.kind == kind for scene in made)
        assert korean / kinds[kind] > KOREAN - 0.06


def test_no_held_drawing_is_shown(made, source):
    splits = Counter(row.split for row in source.atlas.rows)
    assert splits["B"] > 0
    assert splits["C"] > 0
    assert {placed.row.split for scene in made for placed in scene.placed} == {"train"}


def test_no_held_word_is_said(made, source):
    held = {language: frozenset(words) for language, words in source.atlas.held_words.items()}
    assert all(held.values())
    assert not [s.caption for s in made if contains_held(s.caption, held[s.language], s.language)]


def test_no_held_concept_is_named(made, source):
    unseen = {n for r in source.atlas.rows if r.split == "C" for n in r.names["en"]}
    pattern = re.compile(r"\b(" + "|".join(unseen) + r")\b")
    assert not [scene.caption for scene in made if pattern.search(scene.caption)]


def test_no_held_colour_is_used(made):
    glyphs = 0
    for scene in made:
        paper = nearest(scene.background)
        for placed in scene.placed:
            if placed.colour is not None:
                ink = nearest(placed.colour)
                glyphs += 1
                assert not held_colour(placed.row.cluster, ink)
                assert (ink, paper) not in held_colour_pairs()
    assert glyphs > 1000


def test_no_held_pair_is_shown(made):
    pairs = 0
    for scene in made:
        clusters = [placed.row.cluster for placed in scene.placed]
        if scene.kind != "pair":
            continue
        pairs += 1
        assert not held_relation(*clusters)
        front = " front of " in scene.caption or " behind " in scene.caption
        korean = "앞에" in scene.caption or "뒤에" in scene.caption
        if front or korean:  # painted back to front
            clusters.reverse()
        assert trained_order(*clusters) == tuple(clusters)
    assert pairs > 300


def test_painted_colours_are_the_named_ones(made, source):
    for scene in [s for s in made if s.kind == "glyph"][:400]:
        image = source.compose(scene)
        (placed,) = scene.placed
        middle = image[placed.y + placed.side // 2, placed.x + placed.side // 2]
        assert names(nearest(middle), scene)
        white = nearest(image[0, 0]) == "white"
        assert names(nearest(image[0, 0]), scene) or white
        assert nearest(middle) != nearest(image[0, 0])


def test_said_backgrounds_are_painted(made, source):
    for scene in [s for s in made if s.kind in ("background", "pair", "several", "sizes")][:600]:
        said = re.search(r"(\w+) background", scene.caption)
        colour = nearest(source.compose(scene)[0, 0])
        if scene.language == "en":
            assert colour == (said[1] if said else "white")
        else:
            assert names(colour, scene) or colour == "white"


def centre(image, colour) -> tuple[float, float]:
    """Where the pixels of a colour are, as (x, y)."""
    y, x = np.nonzero((image == np.array(colour, np.uint8)).all(-1))
    return x.mean(), y.mean()


def test_places_are_as_the_caption_says(made, source):
    words = {
        "to the left of": (0, -1),
        "to the right of": (0, 1),
        "above": (1, -1),
        "over": (1, -1),
        "below": (1, 1),
        "under": (1, 1),
    }
    pattern = re.compile(f"(.+) ({'|'.join(words)}) (.+)")
    measured = Counter()
    for scene in made:
        match = pattern.match(scene.caption.split(", on ")[0])
        if scene.kind != "pair" or not match or any(p.colour for p in scene.placed):
            continue
        image = source.compose(scene)
        places = {}
        for placed in scene.placed:
            x, y = placed.x + placed.side // 2, placed.y + placed.side // 2
            side = 0 if any(re.search(rf"\b{n}\b", match[1]) for n in placed.row.names["en"]) else 1
            places[side] = centre(image, image[y, x])
        axis, sign = words[match[2]]
        assert sign * (places[0][axis] - places[1][axis]) > 12, scene.caption
        measured[match[2]] += 1
    assert all(measured[word] > 5 for word in words)


def test_pictures_without_a_style_are_in_the_usual_ones(made):
    styles = ("flat cartoon", "noto", "soft shaded", "line art", "평면 만화", "노토", "선화")
    alone = [s for s in made if s.kind in ("emoji", "background")]
    two = [s for s in made if s.kind in ("pair", "sizes") and s.placed[0].colour is None]
    unsaid = [scene for scene in alone + two if not any(style in scene.caption for style in styles)]
    assert 0.2 < len(unsaid) / len(alone + two) < 0.8
    assert {p.row.art.key for scene in unsaid for p in scene.placed} == {"twemoji"}
    assert {s.placed[0].row.art.key for s in alone} == {"twemoji", "noto", "emojione-monotone"}
    assert {s.placed[0].row.art.key for s in two} == {"twemoji", "noto"}


def test_counts_are_as_the_caption_says(made, source):
    numbers = {"two": 2, "three": 3, "four": 4, "five": 5}
    seen = set()
    for scene in [s for s in made if s.kind == "several" and s.language == "en"]:
        said = numbers[scene.caption.split()[0]]
        assert len(scene.placed) == said
        boxes = [(p.x, p.y, p.x + p.side, p.y + p.side) for p in scene.placed]
        assert len(set(boxes)) == said
        seen.add(said)
    assert seen == {2, 3, 4, 5}


def test_larger_scenes_are_the_same_scenes(packed, source, tmp_path):
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "drawings.json").write_bytes((packed / "drawings.json").read_bytes())
    small = np.load(packed / "rgba" / "64.npy")
    blob, offsets = b"", [0]
    for image in small:
        out = io.BytesIO()
        Image.fromarray(image).resize((256, 256), 0).save(out, "webp", lossless=True)
        blob += out.getvalue()
        offsets.append(len(blob))
    (folder / "256.webp").write_bytes(blob)
    np.save(folder / "256.npy", np.array(offsets))
    large = Scenes(folder, size=256)
    for index in range(30):
        assert large.scene(index).caption == source.scene(index).caption
        image = large.sample(index).image()
        assert image.shape == (256, 256, 3)
        shrunk = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BOX))
        difference = np.abs(shrunk.astype(int) - source.sample(index).image())
        assert difference.mean() < 6


def test_a_missing_size_says_what_to_run(packed, tmp_path):
    with pytest.raises(DataError, match="--sizes 64,1024"):
        Atlas(packed, 1024)
    with pytest.raises(DataError, match=r"build\.py"):
        Scenes(tmp_path)


@pytest.fixture
def rows(packed, monkeypatch):
    """Scenes in rows, as many as of the others."""
    monkeypatch.setattr(alike, "ENOUGH", 5)
    source = Alike(packed)
    scenes = source.scenes(range(COUNT))
    return [scenes[i : i + TOGETHER] for i in range(0, len(scenes), TOGETHER)]


def test_a_row_looks_alike_and_shows_different_things(rows):
    for row in rows:
        assert len({scene.kind for scene in row}) == 1
        assert len({scene.language for scene in row}) == 1
        assert len({scene.placed[0].row.concept for scene in row}) > 3
    papers = [Counter(nearest(scene.background) for scene in row).most_common(1) for row in rows]
    # What is held out in the colours of the row is shown in others.
    assert np.mean([count for ((_, count),) in papers]) > 0.75 * TOGETHER
    alone = [row for row in rows if row[0].kind in ("emoji", "background", "glyph")]
    sets = [Counter(scene.placed[0].row.art.key for scene in row).most_common(1) for row in alone]
    assert np.mean([count for ((_, count),) in sets]) > 0.75 * TOGETHER


def test_rows_differ_from_each_other(rows):
    looks = {(row[0].kind, row[0].language, nearest(row[0].background)) for row in rows}
    assert len(looks) > 20


def test_rows_hold_to_the_splits(rows):
    made = [scene for row in rows for scene in row]
    assert {placed.row.split for scene in made for placed in scene.placed} == {"train"}
    test_no_held_colour_is_used(made)
    test_no_held_pair_is_shown(made)
