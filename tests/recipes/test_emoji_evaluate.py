import json

import evaluate
import evaluator
import numpy as np
import pytest
import scores
from held_out import held_out
from scenes import Scenes
from splits import COLOURS, held_colour, held_colour_pairs

from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import Tokenizer
from unclip.clip.vision import ViTConfig
from unclip.decoder.decoder import Decoder
from unclip.pipeline import Slot, UnCLIP
from unclip.presets import preset
from unclip.prior.diffusion_prior import DiffusionPrior

SHORT_CONTEXT = pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")


@pytest.fixture(scope="module")
def source(packed) -> Scenes:
    return Scenes(packed)


def picture(glyph: str, background: str, side: int = 16) -> np.ndarray:
    image = np.empty((64, 64, 3), np.uint8)
    image[:] = COLOURS[background]
    start = (64 - side) // 2
    image[start : start + side, start : start + side] = COLOURS[glyph]
    return image


@pytest.mark.parametrize("glyph", COLOURS)
@pytest.mark.parametrize("background", COLOURS)
def test_colours_are_read_from_pixels(glyph, background):
    expected = (None if glyph == background else glyph, background)
    assert scores.colours_of(picture(glyph, background)) == expected


def test_colours_survive_noise_smaller_than_half_their_distance():
    rng = np.random.default_rng(0)
    noisy = picture("red", "teal").astype(int) + rng.integers(-25, 26, (64, 64, 3))
    assert scores.colours_of(noisy.clip(0, 255).astype(np.uint8)) == ("red", "teal")


def test_a_few_stray_pixels_are_no_glyph():
    image = picture("white", "white")
    image[30:36, 30:36] = COLOURS["blue"]  # 36 of 4,096: below 1 %
    assert scores.colours_of(image) == (None, "white")
    image[30:37, 30:36] = COLOURS["blue"]
    assert scores.colours_of(image) == ("blue", "white")


def test_swapped_and_half_right_colours_are_told_apart():
    images = [picture("red", "blue"), picture("blue", "red"), picture("green", "blue")]
    right = scores.coloured(images, [("red", "blue")] * 3)
    assert right.tolist() == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize("split", ["D trained", "D"])
def test_the_colour_measure_is_right_on_composed_scenes(source, split):
    questions = held_out(source, split, 60)
    images, asked = [q.image for q in questions], [q.colours for q in questions]
    assert scores.coloured(images, asked).all()
    assert not scores.coloured(images, [pair[::-1] for pair in asked]).any(axis=1).any()


def test_trained_colours_are_trained(source):
    clusters = {row.names["en"][0]: row.cluster for row in source.atlas.rows}
    for question in held_out(source, "D trained", 60):
        ink, paper = question.colours
        name = question.caption.split(f"{ink} ")[1].split(" icon")[0]
        assert question.colours not in held_colour_pairs()
        assert not held_colour(clusters[name], ink)
        assert ink != paper


def test_everything_shows_what_training_never_does(packed):
    scenes = Scenes(packed, everything=True)
    splits = {placed.row.split for i in range(300) for placed in scenes.scene(i).placed}
    assert {"train", "B", "C"} <= splits
    trained = Scenes(packed)
    splits = {placed.row.split for i in range(300) for placed in trained.scene(i).placed}
    assert splits == {"train"}


def test_retrieval_of_an_exact_case():
    captions = np.eye(4)
    images = np.array([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0.6, 0.8]])
    assert scores.retrieved(images, captions).tolist() == [True, False, True, True]
    assert scores.retrieved(images, captions, k=2).all()
    assert scores.retrieved(captions, images).tolist() == [True, True, True, True]


def test_an_evaluator_that_sees_no_difference_retrieves_nothing():
    same = np.tile([1.0, 0.0], (5, 1))
    assert not scores.retrieved(same, same).any()
    assert not scores.preferred(same, same, same).any()


def test_shares_and_their_standard_errors():
    hits = np.array([True, True, True, False])
    score = scores.share(hits)
    assert (score.value, score.n) == (0.75, 4)
    assert score.standard_error == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    assert scores.share_of(hits, hits) == scores.Score(1.0, 0.0, 4)
    ratio = scores.share_of(
        np.array([True, False, False, False]), np.array([True, True, False, False])
    )
    # ratio 1/2; residuals 1/2, −1/2, 0, 0 have variance 1/8; SE = sqrt(1/8 / 4) / (1/2)
    assert ratio.value == 0.5
    assert ratio.standard_error == pytest.approx((1 / 8) ** 0.5)
    assert np.isnan(scores.share_of(hits, np.zeros(4, bool)).value)


def test_questions_for_retrieval_have_different_captions(source):
    questions = evaluate.distinct(source, 60)
    assert len({question.caption for question in questions}) == 60
    assert questions[0].key == "train/0"
    assert [q.key for q in questions[:20]] == [q.key for q in evaluate.distinct(source, 20)]


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
def test_the_report_is_complete_and_the_same_every_time(source, tiny, small_evaluator):
    judge = evaluate.Judge(tiny, small_evaluator)
    rows = evaluate.evaluate(judge, source, 4)
    report = evaluate.report_of(judge, rows, "4567", seconds=1.0)
    report = json.loads(json.dumps(report, allow_nan=False))
    assert (report["model"], report["fingerprint"]) == ("tiny", "0123")
    assert report["options"]["size"] == 64
    assert all(
        set(row) == {"about", "pictures", "measure", "score", "bar"} for row in report["rows"]
    )
    assert all(row["score"]["n"] == 4 for row in report["rows"])
    bars = {(row["about"], row["pictures"], row["measure"]): row["bar"] for row in report["rows"]}
    assert len(bars) == len(rows)
    assert bars["training captions", "drawn", "caption by image, R@1, share of real"] == 0.3
    assert bars["colours, trained pairs", "drawn", "glyph and background"] == 0.6
    assert not any(bar for (_, pictures, _), bar in bars.items() if pictures == "real")
    real = [row for row in rows if row.pictures == "real" and row.about.startswith("colours")]
    assert [row.score.value for row in real] == [1, 1, 1, 0] * 2
    assert len(judge.sheets) == 4
    assert evaluate.table_of(rows).row_count == len(rows)
    again = evaluate.evaluate(evaluate.Judge(tiny, small_evaluator), source, 4)
    assert evaluate.report_of(judge, again, "4567", seconds=1.0) == report


@SHORT_CONTEXT
def test_pictures_do_not_depend_on_how_many_are_drawn(source, tiny, small_evaluator):
    questions = held_out(source, "D", 3)
    judge = evaluate.Judge(tiny, small_evaluator)
    alone, together = judge.draw(questions[:1])[0], judge.draw(questions)[0]
    # Sums of another batch size round differently, which may tip a pixel.
    assert np.abs(alone.astype(int) - together).max() <= 1
    other = evaluate.Judge(tiny, small_evaluator, seed=1).draw(questions[:1])[0]
    assert np.abs(alone.astype(int) - other).max() > 1


def test_the_evaluator_is_another_clip():
    ours, theirs = evaluator.EVALUATOR, preset("emoji").clip
    assert ours.image.kind != theirs.image.kind
    assert ours.loss != theirs.loss
    assert evaluator.TRAINING.seed != preset("emoji").training["clip"].seed
