import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from dictionary import FILE, Dictionary
from reading import CAPTIONS, NAMES, WORDS, Lessons, Reading, teach
from scenes import LOOKED_UP, Scenes
from word_vectors import MEANINGS, NEAREST, SHARPNESS, look_up

from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import Clip
from unclip.clip.tokenizer import Tokenizer
from unclip.data.loader import Loader
from unclip.errors import DataError, TrainingError
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.training.config import TrainingConfig
from unclip.types import Batch


def reserved_words(packed: Path) -> list[str]:
    """Words that a dictionary may know and that must not be said for anything else."""
    rows = Scenes(packed).atlas.rows
    unseen = next(row.names["en"][0] for row in rows if row.split == "C")
    return [unseen, f"{unseen}s", "blue", "background"]


@pytest.fixture(scope="module")
def folder(packed: Path, tmp_path_factory) -> Path:
    """The packed drawings, and a dictionary of two words for each trained concept."""
    folder = tmp_path_factory.mktemp("with dictionary")
    for path in packed.iterdir():
        (folder / path.name).symlink_to(path)
    rows = [row for row in Scenes(packed).atlas.rows if row.split == "train"]
    concepts = sorted({row.concept for row in rows})
    # The last four, of one concept each, are never to be used.
    words = [f"{kind}{i}" for i in range(len(concepts)) for kind in ("strange", "rare")]
    words += reserved_words(packed)
    owners = [*np.arange(len(concepts)).repeat(2), *range(len(words) - 2 * len(concepts))]
    np.savez_compressed(
        folder / FILE,
        words=np.array(words),
        concepts=np.array(concepts),
        meanings=np.array(owners)[:, None].astype(np.int32),
        weights=np.ones((len(words), 1), np.float16),
    )
    return folder


@pytest.fixture(scope="module")
def lessons(folder: Path) -> Lessons:
    return Lessons(Scenes(folder), Dictionary(folder))


def test_a_word_is_as_near_to_a_concept_as_its_nearest_texts_on_average():
    axes = torch.eye(6)
    texts = torch.stack([axes[0], axes[1], axes[2], axes[3], 0.5 * axes[0]])
    words = torch.stack([axes[0] + 0.3 * axes[1], axes[3]])
    farther = torch.tensor([0.0, 0.2, 0.0])
    concepts, weights, near = look_up(words, texts, [[0, 1, 2, 3], [4], [3]], farther)
    assert NEAREST == 3
    # Nearest three of the first concept: 1, 0.3 and 0 for the first word, 1, 0 and 0 for the other.
    expected = torch.tensor([[1.3 / 3, 0.3, 0.0], [1 / 3, -0.2, 1.0]])
    assert torch.allclose(near, expected.max(dim=1).values)
    assert concepts[:, 0].tolist() == [0, 2]
    by_concept = torch.zeros(2, 3).scatter(1, concepts, weights)
    assert torch.allclose(by_concept, (SHARPNESS * expected).softmax(dim=1))


def test_a_word_has_no_more_meanings_than_are_kept():
    texts = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    concepts, weights, _ = look_up(texts[:5], texts, [[i] for i in range(40)], torch.zeros(40))
    assert concepts.shape == (5, MEANINGS)
    assert torch.allclose(weights.sum(dim=1), torch.ones(5))


def test_without_a_dictionary_the_error_says_how_to_make_one(packed):
    with pytest.raises(DataError, match=r"run python recipes/emoji/word_vectors.py --cache"):
        Dictionary(packed)
    with pytest.raises(DataError, match="word_vectors"):
        Scenes(packed, dictionary=True)


def test_held_words_stand_for_nothing_where_captions_are_made(folder):
    free, held = Dictionary(folder), Dictionary(folder, ["strange9"])
    concept = free.meanings(free.words.index("strange9"))[0][0]
    assert free.words_for(concept) == (["strange9", "rare9"], [1, 1])
    assert held.words_for(concept) == (["rare9"], [1])
    assert held.words_for("no such concept") == ([], [])


def test_names_never_drawn_and_words_of_captions_stand_for_nothing_else(folder, packed):
    """The names of split C, their plurals, colours and other words around names."""
    kept = set(reserved_words(packed))
    dictionary = Dictionary(folder)
    assert kept < set(dictionary.words)
    lessons = Lessons(Scenes(folder), dictionary)
    assert not kept & {dictionary.words[number] for number in lessons.taught}
    assert len(lessons.taught) == len(dictionary.words) - len(kept)
    scenes = Scenes(folder, dictionary=True)
    for concept in {row.concept for row in scenes.atlas.rows}:
        assert not kept & set(scenes._dictionary.words_for(concept)[0])


def test_scenes_say_some_names_by_other_words_and_show_the_same(folder):
    plain, other = Scenes(folder), Scenes(folder, dictionary=True)
    known = Dictionary(folder)
    words = [word for word in known.words if word.startswith(("strange", "rare"))]
    concepts = {word: known.meanings(i)[0][0] for i, word in enumerate(words)}
    found = Counter()
    for index in range(4000):
        scene = other.scene(index)
        assert not any(word in plain.scene(index).caption.split() for word in concepts)
        if scene.kind != "emoji" or scene.language != "en":
            continue
        words = [word for word in scene.caption.replace(",", "").split() if word in concepts]
        found[bool(words)] += 1
        assert all(concepts[word] == scene.placed[0].row.concept for word in words)
    # A quarter of the captions name no name but keywords.
    assert 0.6 * LOOKED_UP < found[True] / found.total() < 1.1 * LOOKED_UP


def _bare(caption: str) -> str:
    return re.sub(r"\ban? ", "", caption)


def test_a_lesson_is_a_word_or_differs_from_what_is_known_by_one(lessons):
    names = {name for row in lessons.scenes.atlas.rows for name in row.names["en"]}
    taught = {lessons.dictionary.words[number] for number in lessons.taught}
    kinds = Counter()
    for index in range(2000):
        sample = lessons.sample(index)
        known, asked = sample.captions[0], sample.key
        assert lessons.sample(index).key == asked
        words = set(asked.replace(",", "").split()) & taught
        if known == asked:
            kind = "word" if words else "name" if _bare(asked) in names else "kept"
            kinds[kind] += 1
            assert not words or words == {asked}
            continue
        kinds["caption"] += 1
        (word,) = words
        said = {_bare(asked.replace(word, name)) for name in names}
        assert _bare(known) in said
    assert abs(kinds["word"] / 2000 - WORDS) < 0.04
    assert abs(kinds["caption"] / 2000 - CAPTIONS) < 0.03
    # Some of the scenes' captions are names, too.
    assert NAMES - 0.04 < kinds["name"] / 2000 < NAMES + 0.07


def test_words_that_are_names_are_not_taught(folder):
    dictionary = Dictionary(folder)
    scenes = Scenes(folder)
    name = next(row.names["en"][0] for row in scenes.atlas.rows if row.split == "train")
    dictionary.words[5] = name
    assert 5 not in Lessons(scenes, dictionary).taught


def _clip(lessons: Lessons) -> Clip:
    torch.manual_seed(0)
    captions = [lessons.sample(index).key for index in range(500)]
    config = preset("tiny").clip
    return Clip(config, Tokenizer.train(captions, vocabulary=config.text_tower().vocabulary))


def _batch(known: list[str], asked: list[str]) -> Batch:
    return Batch(keys=tuple(asked), captions=tuple(known))


def _cosine(clip: Clip, one: str, other: str) -> float:
    z = clip.encode_text([one, other]).embedding
    return (z[0] @ z[1]).item()


def test_the_losses_are_distances_to_what_is_known(lessons):
    clip = _clip(lessons)
    word = lessons.dictionary.words[lessons.taught[0]]
    meant = lessons.names[lessons.dictionary.meanings(lessons.taught[0])[0][0]]
    batch = _batch(["a cat", "two dogs", word], ["a cat", "hounds", word])
    losses = Reading(_clip(lessons), lessons)(clip, batch, Randomness([0]))
    assert losses["words"].item() == pytest.approx(1 - _cosine(clip, word, meant), abs=1e-5)
    expected = (1 - _cosine(clip, "two dogs", "hounds")) / 2
    assert losses["captions"].item() == pytest.approx(expected, abs=1e-5)
    assert losses["loss"] == sum(losses[part] for part in ("words", "captions", "drift"))


def test_drift_is_how_far_states_of_kept_captions_moved(lessons):
    clip, before = _clip(lessons), _clip(lessons)
    with torch.no_grad():
        for weight in clip.network.text_tower().parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    word, kept = lessons.dictionary.words[lessons.taught[0]], ["a cat", "two small dogs"]
    batch = _batch([*kept, "two dogs", word], [*kept, "hounds", word])
    losses = Reading(_clip(lessons), lessons)(clip, batch, Randomness([0]))
    moved = [(clip.encode_text([c]), before.encode_text([c])) for c in kept]
    parts = [(a.states - b.states)[a.mask].square().mean(dim=-1) for a, b in moved]
    assert losses["drift"].item() == pytest.approx(torch.cat(parts).mean().item(), rel=1e-3)
    assert losses["drift"] > 1e-4


def test_teaching_moves_words_to_what_they_mean_and_leaves_the_image_tower(lessons, tmp_path):
    clip = _clip(lessons)
    save_stage(clip, tmp_path / "clip")
    config = TrainingConfig(steps=60, batch=32, lr=3e-3, warmup=5, save_every=1000, seed=3)
    teach(tmp_path / "clip", tmp_path / "run", lessons.scenes.atlas.folder, config, None)
    taught = load_stage(tmp_path / "clip")
    before, after = clip.state_dict(), taught.state_dict()
    changed = {key.split(".")[1] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"text"}
    batch = next(Loader(lessons, 64, None, seed=99).batches())
    judge = Reading(clip, lessons)
    losses = [judge(some, batch, Randomness([0]))["words"].item() for some in (clip, taught)]
    assert losses[1] < 0.7 * losses[0]


def test_a_run_that_taught_another_clip_takes_the_place_of_none(lessons, tmp_path):
    config = TrainingConfig(steps=2, batch=32, lr=1e-3, warmup=1, save_every=1000, seed=3)
    cache, folder, run = lessons.scenes.atlas.folder, tmp_path / "clip", tmp_path / "run"
    clip = _clip(lessons)
    save_stage(clip, folder)
    teach(folder, run, cache, config, None)
    with torch.no_grad():
        clip.network.image_tower().projection.weight.mul_(1.01)
    save_stage(clip, folder)
    newer = (folder / "weights.safetensors").read_bytes()
    with pytest.raises(TrainingError, match=r"taught another CLIP .* remove .*run"):
        teach(folder, run, cache, config, None)
    assert (folder / "weights.safetensors").read_bytes() == newer
