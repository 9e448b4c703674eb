"""The pieces of an evaluation, on a model of random weights."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unclip.data.folder import FolderSource
from unclip.data.source import BadSample, Sample, Streamed
from unclip.errors import CheckpointError, DataError, OptionError
from unclip.evaluation.drawing import draw, draw_into, pixels, stacked
from unclip.evaluation.evaluate import choose_samples, colour_rows, distance_rows, retrieval_rows
from unclip.evaluation.features import ClipFeatures, InceptionFeatures, embed, load_evaluator
from unclip.evaluation.report import Report, Row
from unclip.evaluation.statistics import Score
from unclip.evaluation.typography import attack, write_on
from unclip.loading import load
from unclip.options import GenerateOptions
from unclip.runtime import choose_runtime
from unclip.types import finish


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return load(tiny_model, choose_runtime("cpu", "fp32"))


@pytest.fixture
def options(model) -> GenerateOptions:
    return model.defaults.override({"size": "64", "batch": "2", "decoder.steps": "2"})


class Pairs:
    """Samples 0 … n−1, each third one unusable."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def sample(self, index: int) -> Sample:
        if index % 3 == 2:
            raise BadSample(str(index), "no caption")
        return Sample(str(index), (f"caption {index}",), np.zeros((4, 4, 3), np.uint8))

    def stream(self, seed: int, start: int = 0):
        for epoch in range(2):
            for index in range(self.count):
                try:
                    yield Streamed(epoch, self.sample(index))
                except BadSample as bad:
                    yield Streamed(epoch, bad)


def test_samples_are_chosen_once_each_and_the_same_every_time() -> None:
    chosen, _ = choose_samples(Pairs(30), 10, seed=1)
    again, _ = choose_samples(Pairs(30), 10, seed=1)
    assert [s.key for s in chosen] == [s.key for s in again]
    assert len({s.key for s in chosen}) == 10
    every, skipped = choose_samples(Pairs(30), 100)
    assert (len(every), skipped) == (20, 10)
    with pytest.raises(DataError, match="two captioned images"):
        choose_samples(Pairs(1), 10)


def test_a_stream_is_read_for_one_epoch() -> None:
    class Stream:
        stream = Pairs(9).stream

    chosen, skipped = choose_samples(Stream(), 100)
    assert (len(chosen), skipped) == (6, 3)


def test_pictures_do_not_depend_on_how_many_are_drawn(model, options) -> None:
    captions, keys = ["a red ball", "a blue ball", "a cat"], ["a", "b", "c"]
    together = finish(draw(model, captions, keys, options, seed=3))
    alone = finish(draw(model, captions[2:], keys[2:], options, seed=3))
    assert torch.allclose(together[2:], alone, atol=1e-4)
    other = finish(draw(model, captions[2:], keys[2:], options, seed=4))
    assert not torch.allclose(alone, other, atol=0.1)


def test_only_missing_pictures_are_drawn(model, options, tmp_path: Path) -> None:
    captions, keys = ["a red ball", "a blue ball", "a cat"], ["a", "b", "c"]
    files = finish(draw_into(tmp_path / "p", model, captions, keys, options))
    first = [file.read_bytes() for file in files]
    files[1].unlink()
    kept = files[0].stat().st_mtime_ns
    steps = list(draw_into(tmp_path / "p", model, captions, keys, options))
    assert [step.index for step in steps if step.stage == "pictures"] == [2]
    assert files[0].stat().st_mtime_ns == kept
    assert [file.read_bytes() for file in files] == first
    with pytest.raises(OptionError, match="another folder"):
        finish(draw_into(tmp_path / "p", model, [*captions[:2], "a dog"], keys, options))


def test_pictures_go_to_pixels_and_back() -> None:
    levels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    assert np.array_equal(pixels(stacked(levels)), levels)


def test_features_of_a_clip_have_components_of_order_one(model) -> None:
    with model.clip.use() as clip:
        features = ClipFeatures(clip)
        images = torch.rand(5, 3, 64, 64) * 2 - 1
        rows = embed(features, iter(images), batch=2)
        assert rows.shape == (5, clip.config.embedding)
        assert rows.square().mean(dim=1).tolist() == pytest.approx([1] * 5, rel=1e-5)
        assert torch.allclose(rows, features(images), atol=1e-4)


def test_the_models_own_clip_may_not_judge_it(model, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="own CLIP"):
        load_evaluator(tiny_model, model)
    with pytest.raises(CheckpointError, match="no CLIP but a prior"):
        load_evaluator(tiny_model / "prior", model)
    assert load_evaluator(tiny_model / "clip").config.embedding > 0


def test_inception_gets_resized_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = {}

    class Network(torch.nn.Module):
        def __init__(self, name, layers, feature_extractor_weights_path=None) -> None:
            super().__init__()
            seen.update(name=name, layers=layers, weights=feature_extractor_weights_path)

        def forward(self, levels):
            seen.update(dtype=levels.dtype, shape=levels.shape)
            return (levels.float().mean(dim=(2, 3)).double(),)

    parent = types.ModuleType("torch_fidelity")
    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Network
    monkeypatch.setitem(sys.modules, parent.__name__, parent)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    weights = tmp_path / "weights.pth"
    with pytest.raises(CheckpointError, match="no such file"):
        InceptionFeatures(weights)
    weights.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="is no file of weights"):
        InceptionFeatures(weights)
    torch.save({"weight": torch.zeros(1)}, weights)
    rows = InceptionFeatures(weights)(torch.full((2, 3, 64, 64), 1.0))
    assert seen["layers"] == ["2048"]
    assert seen["weights"] == str(weights)
    assert (seen["dtype"], seen["shape"]) == (torch.uint8, (2, 3, 299, 299))
    assert rows.dtype == torch.float32
    assert rows.tolist() == [pytest.approx([255] * 3)] * 2


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_distance_rows_have_a_floor() -> None:
    rows = {(r.pictures, r.measure): r.score for r in
            distance_rows("x", normal(60, 4), 3 + normal(60, 4, seed=1))}  # fmt: skip
    assert rows["drawn", "KID"].value > 10 * abs(rows["real, two halves", "KID"].value)
    assert rows["drawn", "precision (k = 3)"].value < 0.2
    assert rows["real, two halves", "KID"].n == 30


def test_retrieval_is_corrected_by_what_real_pictures_reach() -> None:
    text = torch.eye(20)
    drawn = torch.cat([text[:10], text[10:].flip(0)])  # half of them right
    rows = {(r.pictures, r.measure): r for r in
            retrieval_rows("x", {"real": text, "drawn": drawn}, text)}  # fmt: skip
    assert rows["real", "R@1 of 20"].score.value == 1
    assert rows["drawn", "R@1 of 20"].score.value == 0.5
    corrected = rows["drawn", "R@1 of 20, chance-corrected share of real"].score.value
    assert corrected == pytest.approx((0.5 - 0.05) / (1 - 0.05))
    assert rows["drawn", "R@1 of 20"].note == "chance 0.050"


def test_colours_are_judged_where_captions_name_them() -> None:
    image = np.full((32, 32, 3), (37, 99, 235), np.uint8)
    image[8:24, 8:24] = (224, 36, 36)
    words = ["a red cat icon on a blue background", "a cat", "a blue cat icon on a red background"]
    rows = {r.measure: r for r in colour_rows(words, lambda i: image)}
    assert rows["glyph and background"].score.value == 0.5
    assert rows["the two swapped"].score.value == 0.5
    assert "fewer than" in rows["glyph and background"].note
    assert colour_rows(["a cat"], lambda i: image) == []


def test_a_report_escapes_what_others_wrote(tmp_path: Path) -> None:
    nothing = Score(float("nan"), float("nan"), 3)
    rows = [
        Row("<script>", "drawn", "both", Score(0.5, 0.1, 9), bar=0.4),
        Row("x", "drawn", "time", Score(2.0, 0.1, 9), bar=1.0, most=True),
        Row("x", "drawn", "nothing", nothing, bar=0.5),
    ]
    report = Report("a & b", {"model": "<b>"}, rows, {"a sheet": Image.new("RGB", (8, 8))})
    report.write(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert [row.passed for row in rows] == [True, False, None]
    assert {p.name for p in tmp_path.iterdir()} == {"report.html", "report.json", "a-sheet.png"}


def test_words_are_written_across_the_middle() -> None:
    plain = Image.new("RGB", (64, 64), "green")
    written = write_on(plain, "iPod")
    changed = (np.asarray(written) != np.asarray(plain)).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert 0.03 < changed.mean() < 0.5
    assert abs(rows.mean() - 31.5) < 3
    assert abs(columns.mean() - 31.5) < 3
    assert write_on(plain, "").tobytes() == plain.tobytes()
    long = np.asarray(write_on(plain, "a very long word indeed"))
    assert (long[:, 0] == long[0, 0]).all(), "the label stays within the picture"


@pytest.mark.filterwarnings("ignore::unclip.clip.tokenizer.CaptionCut")
def test_an_attack_changes_the_embedding_alone(model, options) -> None:
    picture = Image.new("RGB", (64, 64), "green")
    attacks = finish(attack(model, picture, ["iPod", ""], ["cat", "iPod"], options, variations=2))
    assert [a.text for a in attacks] == ["", "iPod", ""]
    plain, written, again = attacks
    assert plain.probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert [v.tobytes() for v in plain.variations] == [v.tobytes() for v in again.variations]
    assert [v.tobytes() for v in plain.variations] != [v.tobytes() for v in written.variations]


def test_folders_without_captions_have_nothing_to_evaluate(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="not 0"):
        choose_samples(FolderSource(tmp_path), 10)
