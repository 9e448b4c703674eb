import math
import warnings

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from unclip.clip.architectures import ARCHITECTURES, architecture
from unclip.clip.clip import MAX_LOG_SCALE, Clip, ClipConfig
from unclip.clip.resnet import ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import SMALLEST, CaptionCut, Tokenizer
from unclip.clip.vision import PatchEmbedding, ViTConfig
from unclip.errors import CheckpointError, OptionError
from unclip.randomness import Randomness
from unclip.types import Batch, Stage

CAPTIONS = tuple(f"{colour} {thing}" for colour in ("red", "blue") for thing in ("cat", "사과"))
CONFIG = ClipConfig(
    image=ViTConfig(size=16, patch=4, width=32, depth=2, heads=2),
    text=TextConfig(context=16, width=32, depth=2, heads=2, vocabulary=300),
    embedding=24,
    caption_context=24,
)


def build(**changes):
    torch.manual_seed(0)
    config = CONFIG.model_copy(update=changes)
    return Clip(config, Tokenizer.train(CAPTIONS * 2, vocabulary=300))


def batch(captions=CAPTIONS, size=16):
    generator = torch.Generator().manual_seed(1)
    colours = torch.rand(len(captions), 3, 1, 1, generator=generator)
    images = (colours + torch.rand(len(captions), 3, size, size, generator=generator)) - 1
    keys = tuple(str(i) for i in range(len(captions)))
    return Batch(keys=keys, images=images, captions=tuple(captions))


def randomness(count):
    return Randomness(range(count))


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("RN50", 102),
        ("RN101", 120),
        ("RN50x4", 178),
        ("RN50x16", 291),
        ("RN50x64", 623),
        ("ViT-B/32", 151),
        ("ViT-B/16", 150),
        ("ViT-L/14", 428),
        ("ViT-L/14@336px", 428),
        ("ViT-H/16", 986),
    ],
)
def test_published_sizes(name, millions):
    with torch.device("meta"):
        network = Clip.from_config(architecture(name)).network
    assert round(count(network) / 1e6) == millions
    if name == "ViT-L/14":
        assert count(network) == 427_616_513  # OpenAI's file
    if name == "ViT-H/16":
        assert round(count(network.image) / 1e9, 2) == 0.63
        assert round(count(network.text) / 1e9, 2) == 0.35


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_an_unknown_architecture_is_named():
    assert len(ARCHITECTURES) == 10
    with pytest.raises(OptionError, match=r"'ViT-Z/1'; known: RN50, "):
        architecture("ViT-Z/1")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (ViTConfig, {"size": 15, "patch": 4, "width": 32, "depth": 1, "heads": 2}),
        (ViTConfig, {"size": 16, "patch": 4, "width": 32, "depth": 1, "heads": 3}),
        (ViTConfig, {"size": 16, "patch": 4, "width": 32, "depth": 1, "heads": 2, "keep": 0}),
        (ModifiedResNetConfig, {"size": 48, "layers": (1, 1, 1, 1), "width": 8, "heads": 4}),
        (ModifiedResNetConfig, {"size": 64, "layers": (1, 1, 1, 1), "width": 8, "heads": 3}),
        (TextConfig, {"width": 32, "depth": 1, "heads": 3}),
        (TextConfig, {"width": 32, "depth": 1, "heads": 2, "context": 2}),
    ],
)
def test_impossible_sizes_are_refused(kind, changes):
    with pytest.raises(ValidationError):
        kind(**changes)


def test_config_survives_json():
    for config in (CONFIG, *ARCHITECTURES.values()):
        assert ClipConfig.model_validate_json(config.model_dump_json()) == config


def test_it_is_a_stage():
    clip = build()
    assert isinstance(clip, Stage)
    assert clip.needs == {"images", "captions"}


@pytest.mark.parametrize(
    ("kind", "loss", "steps"),
    [("vit", "softmax", 40), ("resnet", "softmax", 40), ("vit", "sigmoid", 170)],
)
def test_overfits_one_batch(kind, loss, steps):
    changes = {"loss": loss, "planned_batch": 4}
    if kind == "resnet":
        resnet = ModifiedResNetConfig(size=32, layers=(1, 1, 1, 1), width=8, heads=4)
        changes["image"] = resnet
    clip, data = build(**changes), batch(size=32)
    optimizer = torch.optim.Adam(clip.parameters(), lr=5e-4)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses = clip(data, randomness(4))
        losses["loss"].backward()
        optimizer.step()
        clip.after_step()
        history.append(losses["loss"].item())
    assert history[-1] < 0.02 * history[0]
    assert losses["accuracy"] == 1


@pytest.mark.parametrize(("scale", "tolerance"), [(1, 0.005), (1 / 0.07, 0.08)])
def test_random_model_loss_is_the_logarithm_of_the_batch(scale, tolerance):
    clip = build(embedding=512)  # random cosines are of the size of 512^-½
    with torch.no_grad():
        clip.network.logit_scale.fill_(math.log(scale))
    data = batch([f"red {i}" for i in range(64)])
    loss = clip(data, randomness(64))["loss"].item()
    assert loss == pytest.approx(math.log(64), rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logit_scale_never_exceeds_100(dtype):
    clip = build().to(dtype)
    with torch.no_grad():
        clip.network.logit_scale.fill_(7.0)
    losses = clip(batch(), randomness(4))
    assert 98.9 <= losses["logit_scale"] <= 100
    losses["loss"].backward()
    assert clip.network.logit_scale.grad  # it may come down again
    with torch.no_grad():
        clip.network.logit_scale.add_(1)
    clip.after_step()
    assert clip.network.logit_scale.exp() <= 100
    assert math.exp(MAX_LOG_SCALE) > 99.999


def test_initial_scale_and_bias():
    assert build().network.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert build().network.logit_bias is None
    sigmoid = build(loss="sigmoid", planned_batch=512).network
    assert sigmoid.logit_scale.exp().item() == pytest.approx(10)
    assert sigmoid.logit_bias.item() == pytest.approx(-math.log(512))


def test_bfloat16_autocast_trains_in_float32():
    clip = build()
    with torch.autocast("cpu", torch.bfloat16):
        losses = clip(batch(), randomness(4))
    assert losses["loss"].dtype == torch.float32
    exact = clip(batch(), randomness(4))["loss"]
    assert losses["loss"].item() == pytest.approx(exact.item(), rel=0.02)


def test_embeddings_have_unit_length():
    clip = build().eval()
    images = batch().images
    z_i, text = clip.encode_image(images), clip.encode_text(CAPTIONS)
    for z in (z_i, text.embedding):
        assert z.shape == (4, 24)
        torch.testing.assert_close(z.norm(dim=1), torch.ones(4))
    raw = clip.encode_image(images, normalise=False)
    torch.testing.assert_close(functional.normalize(raw, dim=1), z_i)
    raw = clip.encode_text(CAPTIONS, normalise=False).embedding
    torch.testing.assert_close(functional.normalize(raw, dim=1), text.embedding)
    assert (raw.norm(dim=1) - 1).abs().min() > 1e-3


def test_text_features_carry_both_contexts():
    clip = build().eval()
    text = clip.encode_text(["red cat", ""])
    assert text.states.shape == (2, 16, 32)
    assert text.caption.shape == text.caption_mask.shape == (2, 24)
    ids, mask, _ = clip.tokenizer.encode(["red cat", ""], 24)
    assert torch.equal(text.caption, ids)
    assert torch.equal(text.caption_mask, mask)
    assert torch.equal(text.mask, mask[:, :16])
    torch.testing.assert_close(text.states[text.mask].mean(dim=-1), torch.zeros(int(mask.sum())))


def test_a_caption_is_embedded_alike_in_any_company():
    clip = build().eval()
    together = clip.encode_text(["", "red cat", "blue blue 사과"])
    for i, caption in enumerate(["", "red cat", "blue blue 사과"]):
        alone = clip.encode_text([caption])
        torch.testing.assert_close(alone.embedding[0], together.embedding[i])
        torch.testing.assert_close(alone.states[0], together.states[i])


def test_text_is_causal_and_blind_to_padding():
    clip = build().eval()
    ids, mask, _ = clip.tokenizer.encode(["red blue cat"], 16)
    embedding, states = clip.network.text(ids, mask)
    length = int(mask.sum())
    for position in range(16):
        changed = ids.clone()
        changed[0, position] = 77
        other, others = clip.network.text(changed, mask)
        same = (others - states).abs().amax(dim=(0, 2)) < 1e-6
        assert same[:position].all()
        assert not same[position]
        assert torch.allclose(other, embedding, atol=1e-6) == (position >= length)


def test_cut_prompts_are_warned_about_by_encoder():
    clip = build().eval()
    with pytest.warns(CaptionCut) as caught:
        clip.encode_text(["red", "z" * 18])
    assert [str(item.message).split(" reads ")[0] for item in caught] == ["CLIP's text tower"]
    assert "reads 16 tokens and cut 'zzzzzzzzzzzzzzzzzz':" in str(caught[0].message)
    with pytest.warns(CaptionCut) as caught:
        clip.encode_text(["y" * 99, "z" * 30])
    assert [str(item.message).split(" reads ")[0] for item in caught] == [
        "CLIP's text tower",
        "the decoder's caption encoder",
    ]
    assert "…' and 1 more: " in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.encode_text(["z" * 30], warn=False)
        clip.encode_text(["z" * 13])  # 13 letters, the space before them, start and end
        losses = clip(batch(["red", "z" * 99, "y" * 14]), randomness(3))
    assert losses["captions_cut"] == 2


def test_runs_in_bfloat16_and_answers_in_float32():
    clip = build().eval()
    images = batch().images
    z_i, z_t = clip.encode_image(images), clip.encode_text(CAPTIONS).embedding
    clip.to(torch.bfloat16)
    text = clip.encode_text(CAPTIONS)
    assert text.embedding.dtype == text.states.dtype == torch.float32
    assert (z_i * clip.encode_image(images)).sum(dim=1).min() > 0.999
    assert (z_t * text.embedding).sum(dim=1).min() > 0.999


def test_checkpoint_keeps_the_tokenizer(tmp_path):
    clip = build().eval()
    clip.save_extras(tmp_path)
    again = Clip.from_config(clip.config, tmp_path).eval()
    again.load_state_dict(clip.state_dict())
    for a, b in (
        (again.encode_text(CAPTIONS).embedding, clip.encode_text(CAPTIONS).embedding),
        (again.encode_image(batch().images), clip.encode_image(batch().images)),
    ):
        assert torch.equal(a, b)
    with pytest.raises(CheckpointError, match="missing"):
        Clip.from_config(clip.config, tmp_path / "elsewhere")


def test_a_vocabulary_that_does_not_fit_is_refused():
    small = CONFIG.text.model_copy(update={"vocabulary": SMALLEST - 1})
    with pytest.raises(OptionError, match=r"259 tokens, text\.vocabulary has room for 258"):
        Clip.from_config(CONFIG.model_copy(update={"text": small}))


def test_patches_are_a_convolution():
    torch.manual_seed(0)
    patches, x = PatchEmbedding(4, 7).double(), torch.randn(2, 3, 12, 8, dtype=torch.float64)
    expected = functional.conv2d(x, patches.weight, stride=4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(patches(x), expected)


def test_training_keeps_a_share_of_the_patches():
    clip = build(image=CONFIG.image.model_copy(update={"keep": 0.25}))
    seen = []
    clip.network.image.norm_in.register_forward_hook(lambda module, x, y: seen.append(x[0]))
    pixels = clip.pixels(batch().images)
    tower = clip.network.image
    tower(pixels, randomness(4))
    tower(pixels, randomness(4))
    tower(pixels, Randomness(range(5, 9)))
    tower.eval()(pixels, randomness(4))
    first, again, other, full = seen
    assert first.shape == (4, 1 + 4, 32)
    assert full.shape == (4, 1 + 16, 32)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first[:, 0], full[:, 0])  # the class token always stays
    for kept, patches in zip(first, full, strict=True):
        distances = torch.cdist(kept, patches)
        assert distances.min(dim=1).values.max() < 1e-5
        assert len(distances.argmin(dim=1).unique()) == 5
    with pytest.raises(AssertionError):  # every image loses other patches
        torch.testing.assert_close(first[0] - full[0, :5], first[1] - full[1, :5])
