import json
from collections import Counter
from dataclasses import replace

import candidates
import enlarging
import evaluate
import evaluator
import numpy as np
import pytest
import scores
import torch
from candidates import Candidates
from held_out import held_out
from judge import FromPictures, Judge
from scenes import Scenes
from splits import held_colour, held_colour_pairs, kept_from_evaluator

from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import Tokenizer
from unclip.clip.vision import ViTConfig
from unclip.decoder.decoder import Decoder
from unclip.evaluation.colours import asked_colours, coloured
from unclip.evaluation.report import Report
from unclip.pipeline import Slot, UnCLIP
from unclip.presets import preset
from unclip.prior.diffusion_prior import DiffusionPrior

SHORT_CONTEXT = pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")


@pytest.fixture(scope="module")
def source(packed) -> Scenes:
    return Scenes(packed)


@pytest.fixture
def few(monkeypatch) -> None:
    """As many candidates as there are animals."""
    monkeypatch.setattr(candidates, "CANDIDATES", 20)
    monkeypatch.setattr(candidates, "SAME_STYLE", 6)
    monkeypatch.setattr(candidates, "WORDS", 30)


@pytest.mark.parametrize("split", ["D trained", "D"])
def test_the_colour_measure_is_right_on_composed_scenes(source, split):
    questions = held_out(source, split, 60)
    images, asked = [q.image for q in questions], [q.colours for q in questions]
    assert [asked_colours(q.caption) for q in questions] == asked
    assert coloured(images, asked).all()
    assert not coloured(images, [pair[::-1] for pair in asked]).any()


def test_trained_colours_are_trained(source):
    clusters = {row.names["en"][0]: row.cluster for row in source.atlas.rows}
    for question in held_out(source, "D trained", 60):
        ink, paper = question.colours
        name = question.caption.split(f"{ink} ")[1].split(" icon")[0]
        assert question.colours not in held_colour_pairs()
        assert not held_colour(clusters[name], ink)
        assert ink != paper


def test_the_evaluator_learns_all_splits_but_what_examines_it(packed):
    scenes = Scenes(packed, everything=True)
    rows = [placed.row for i in range(600) for placed in scenes.scene(i).placed]
    assert {"train", "B"} <= {row.split for row in rows}
    held = [row for row in rows if row.split in ("B", "C")]
    assert not any(kept_from_evaluator(row.cluster, row.art.family) for row in held)
    trained = Scenes(packed)
    splits = {placed.row.split for i in range(300) for placed in trained.scene(i).placed}
    assert splits == {"train"}


def test_the_evaluator_is_examined_on_what_it_never_saw(source):
    questions = held_out(source, "evaluator", 100)
    assert questions
    for question in questions:
        (row,) = question.rows
        assert row.split in ("B", "C")
        assert kept_from_evaluator(row.cluster, row.art.family)


def test_half_of_the_evaluators_examples_show_one_emoji(packed):
    scenes = evaluator.Examples(packed, everything=True)
    shown = [scenes.scene(i) for i in range(300)]
    kinds = Counter(scene.kind for scene in shown)
    assert kinds["emoji"] / 300 > evaluator.ALONE
    assert scenes.scene(7) == evaluator.Examples(packed, everything=True).scene(7)


def test_questions_for_retrieval_have_different_captions(source):
    questions = scores.distinct(source, 60)
    assert len({question.caption for question in questions}) == 60
    assert questions[0].key == "train/0"
    assert [q.key for q in questions[:20]] == [q.key for q in scores.distinct(source, 20)]


@pytest.mark.usefixtures("few")
def test_candidates_of_a_cell_hold_its_concept_in_every_style_and_its_style(source):
    drawn_in = {row.art.styles[0] for row in source.atlas.rows if not row.icon}
    for question in held_out(source, "B", 12):
        options = Candidates(source).cell(question.rows[0], question.key)
        assert options == Candidates(source).cell(question.rows[0], question.key)
        assert options[0].caption == question.caption
        assert len({option.caption for option in options}) == len(options) == 20
        own = [option.style for option in options if option.concept == options[0].concept]
        assert sorted(own) == sorted(drawn_in)
        assert sum(option.style == options[0].style for option in options) == 1 + 6


@pytest.mark.usefixtures("few")
def test_candidates_never_name_what_is_in_the_picture_twice(source):
    for question in held_out(source, "E", 12):
        nouns = Candidates(source).nouns("a thing", question.rows, question.key)
        assert len(set(nouns)) == 20
        assert not {f"a {row.names['en'][0]}" for row in question.rows} & set(nouns[1:])


@pytest.mark.usefixtures("few")
def test_every_meaning_of_an_unseen_word_is_right(source):
    for split, language in (("S", "en"), ("S ko", "ko")):
        for question in held_out(source, split, 12):
            held = source.atlas.held_keywords
            assert question.rows[0].concept in question.concepts
            assert all(question.caption in held[c][language] for c in question.concepts)
            options = Candidates(source).words(question.concepts, question.key)
            assert len(options) == 30
            right = [option.concept for option in options if option.concept in question.concepts]
            assert sorted(right) == sorted(question.concepts)


def test_counts_say_and_show_the_number(source):
    words = {2: "two", 3: "three", 4: "four", 5: "five"}
    for question in held_out(source, "counts", 40):
        assert question.caption.startswith(words[question.number])
        assert len(question.rows) == 1
    right = [q.number for q in held_out(source, "counts", 40)]
    from unclip.evaluation.objects import right_counts

    shown = right_counts([q.image for q in held_out(source, "counts", 40)], right)
    assert shown.float().mean() > 0.9, "the drawings here are plain squares"


def test_korean_questions_name_concept_and_style(source):
    asked = [q.korean for q in held_out(source, "B", 12)]
    assert all(korean.endswith(" 스타일") for korean in asked)


def test_the_nearest_training_image_is_a_training_image(source, tiny, small_evaluator, tmp_path):
    judge = Judge(tiny, small_evaluator, tmp_path)
    questions = held_out(source, "B", 4)
    pictures = scores.nearest_training_images(judge, source, questions)
    from held_out import alone_on_white

    trained = {
        alone_on_white(source, row).tobytes() for row in source.atlas.rows if row.split == "train"
    }
    assert all(picture.tobytes() in trained for picture in pictures)


def test_quarters_hold_every_pixel_once():
    pictures = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    parts = scores.quarters(pictures)
    assert parts.shape == (8, 2, 2, 3)
    assert sorted(parts.ravel()) == sorted(pictures.ravel())
    assert np.array_equal(parts[0], pictures[0, :2, :2])


def test_psnr_has_a_closed_form():
    truth = torch.zeros(3, 8, 8)
    assert enlarging.psnr(truth + 0.2, truth) == pytest.approx(20.0)  # 10 log10(2² / 0.2²)
    assert enlarging.psnr(truth, truth) == pytest.approx(60.0)


def test_the_busiest_tile_is_compared():
    image = torch.zeros(3, 128, 256)
    image[:, 70:100, 140:150] = 1
    assert enlarging.busiest(image) == (slice(64, 128), slice(128, 192))


@pytest.fixture(scope="module")
def tiny() -> UnCLIP:
    sizes = preset("tiny")
    clip = Clip(sizes.clip, Tokenizer.train([], vocabulary=259))
    prior, decoder = DiffusionPrior(sizes.prior(clip.config)), Decoder(sizes.decoder(clip.config))
    stages = [stage.eval().requires_grad_(False) for stage in (clip, prior, decoder)]
    slots = [Slot.holding(stage) for stage in stages]
    return UnCLIP(*slots, {}, size=64, defaults=sizes.defaults, name="tiny", fingerprint="0123")


@pytest.fixture(scope="module")
def small_evaluator(source) -> Clip:
    config = ClipConfig(
        image=ViTConfig(size=16, patch=8, width=16, depth=1, heads=1),
        text=TextConfig(context=16, width=16, depth=1, heads=1, vocabulary=300),
        embedding=8,
        caption_context=16,
    )
    return evaluator.build(source, config, captions=50).eval()


@SHORT_CONTEXT
@pytest.mark.usefixtures("few")
def test_the_report_is_complete_and_the_same_every_time(
    packed, tiny, small_evaluator, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, "examine", lambda judge, source: [])
    parts = (*evaluate.PARTS, "distances", "upsamplers")

    def report(folder: str) -> tuple[dict, Judge]:
        judge = Judge(tiny, small_evaluator, tmp_path / folder)
        rows = evaluate.evaluate(judge, packed, 4, parts)
        whole = Report("tiny", {}, rows, judge.sheets)
        whole.write(tmp_path / folder)
        return json.loads((tmp_path / folder / "report.json").read_text()), judge

    first, judge = report("first")
    rows = {(r["about"], r["pictures"], r["measure"]): r for r in first["rows"]}
    assert len(rows) == len(first["rows"])
    bars = [row["bar"] for row in first["rows"] if row["bar"] is not None]
    assert sorted(bars) == [0.0, 0.25, 0.6, 0.6, 0.6, 0.75, 0.75, 0.85, 0.95, 5.0]
    assert all(row["bar"] is None for (_, kind, _), row in rows.items() if kind == "real")
    real = [r for (about, kind, _), r in rows.items() if "colours" in about and kind == "real"]
    assert [row["score"]["value"] for row in real] == [1, 1, 1, 0] * 2
    assert len(judge.sheets) == 10
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "first").rglob("0*.png")}
    again, _ = report("first")
    assert again == first
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


@SHORT_CONTEXT
def test_without_a_prior_z_i_are_those_of_the_real_pictures(
    source, tiny, small_evaluator, tmp_path
):
    """Other pictures, other z_i, other drawings; and the model's prior is not asked."""
    torch.manual_seed(0)
    with tiny.clip.use() as clip:
        decoder = Decoder(preset("tiny").decoder(clip.config)).eval().requires_grad_(False)
    for weight in decoder.parameters():  # new ones say 0, whatever they are given
        weight.add_(0.05 * torch.randn_like(weight))
    blind = UnCLIP(tiny.clip, None, Slot.holding(decoder), {}, size=64, defaults=tiny.defaults)
    judge = FromPictures(blind, small_evaluator, tmp_path)
    questions = held_out(source, "B", 3)
    drawn = judge.draw("B", questions)
    assert drawn.shape == (3, 64, 64, 3)
    assert drawn.dtype == np.uint8
    assert np.array_equal(judge.draw("B", questions), drawn)
    swapped = [replace(questions[0], image=questions[1].image), *questions[1:]]
    others = judge.draw("B", swapped)
    assert not np.array_equal(others[0], drawn[0])
    assert np.array_equal(others[1:], drawn[1:])


def test_the_evaluator_is_another_clip():
    ours, theirs = evaluator.EVALUATOR, preset("emoji").clip
    assert ours.image.kind != theirs.image.kind
    assert ours.text.vocabulary != theirs.text.vocabulary
    assert evaluator.TRAINING.seed != preset("emoji").training["clip"].seed
