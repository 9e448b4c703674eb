import pytest
import torch

from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.clip.zero_shot import ENSEMBLE, SIMPLE, class_weights, zero_shot_logits
from unclip.errors import OptionError


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    config = ClipConfig(
        image=ViTConfig(size=8, patch=4, width=16, depth=1, heads=2),
        text=TextConfig(context=48, width=16, depth=1, heads=2, vocabulary=259),
        embedding=8,
    )
    return Clip.from_config(config).eval()


def test_weights_are_the_renormalised_mean_of_unit_embeddings(clip):
    templates = ("a {}.", "{} and {}")
    weights = class_weights(clip, ["cat", "사과"], templates)
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(2))
    prompts = [["a cat.", "cat and cat"], ["a 사과.", "사과 and 사과"]]
    for row, sentences in zip(weights, prompts, strict=True):
        mean = sum(clip.encode_text([sentence]).embedding[0] for sentence in sentences) / 2
        torch.testing.assert_close(row, mean / mean.norm())


def test_one_template_is_the_text_embedding_itself(clip):
    weights = class_weights(clip, ["cat"], SIMPLE)
    torch.testing.assert_close(weights, clip.encode_text(["a photo of a cat."]).embedding)


def test_logits_are_a_hundred_cosines():
    images = torch.tensor([[3.0, 4.0], [-0.2, 0.0]])  # of any length
    logits = zero_shot_logits(images, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]))
    expected = torch.tensor([[60.0, 80.0, 100.0], [-100.0, 0.0, -60.0]])
    torch.testing.assert_close(logits, expected)


def test_the_ensemble_has_a_place_for_the_label():
    assert SIMPLE == ("a photo of a {}.",)
    assert len(set(ENSEMBLE)) == len(ENSEMBLE)
    assert all(template.count("{}") == 1 for template in ENSEMBLE)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], SIMPLE, "at least one label"),
        (["cat"], (), "one template"),
        (["cat"], ("a photo",), "'a photo' has no {}"),
    ],
)
def test_impossible_requests_are_named(clip, labels, templates, message):
    with pytest.raises(OptionError, match=message):
        class_weights(clip, labels, templates)
