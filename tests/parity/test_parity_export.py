"""What we export, read by diffusers and transformers: the same outputs, and the same bits back."""

import shutil
from pathlib import Path
from typing import Any

import kandinsky_small as small
import pytest
import torch
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from diffusers.pipelines.unclip.text_proj import UnCLIPTextProjModel
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    CLIPTextModelWithProjection,
    CLIPVisionModelWithProjection,
)

from unclip.checkpoint import Card, load_stage, read_config, save_pipeline
from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.decoder.conditioning import ClipStatesConfig, ImageEmbeddingConfig
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.decoder.network import DecoderNetworkConfig
from unclip.diffusion.process import DiffusionConfig
from unclip.errors import CheckpointError
from unclip.nn.caption_encoder import CaptionEncoderConfig
from unclip.nn.transformer import TransformerConfig
from unclip.nn.unet import UNetConfig
from unclip.options import GenerateOptions
from unclip.prior.diffusion_prior import DiffusionPrior, DiffusionPriorConfig
from unclip.prior.network import PriorNetworkConfig
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig
from unclip.types import TextFeatures
from unclip.weights.convert import import_source
from unclip.weights.export import export_model

TIMES = (0, 500, 999)
WIDTH, CONTEXT = 24, 10


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().std())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return small.parts(torch.float32)


@pytest.fixture(scope="module")
def repositories(theirs: dict, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small.save(tmp_path_factory.mktemp("kandinsky"), theirs)


@pytest.fixture(scope="module")
def kandinsky(
    repositories: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The imported model, and its export."""
    folder = tmp_path_factory.mktemp("model")
    model = import_source(f"{repositories[0]}+{repositories[1]}", folder / "imported")
    written, left = export_model(model, folder / "exported")
    assert written == ["text_encoder", "image_encoder", "prior", "unet", "movq"]
    assert [one.what for one in left] == ["clip: scale and bias of the logits"]
    return model, folder / "exported"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("prior", PriorTransformer),
        ("unet", UNet2DConditionModel),
        ("movq", VQModel),
        ("text_encoder", CLIPTextModelWithProjection),
        ("image_encoder", CLIPVisionModelWithProjection),
    ],
)
def test_what_was_imported_leaves_as_it_came(
    theirs: dict, kandinsky: tuple[Path, Path], name: str, kind: Any
) -> None:
    loaded = kind.from_pretrained(kandinsky[1] / name)
    assert same(loaded.state_dict(), theirs[name].state_dict())
    for field, value in theirs[name].config.items() if name in ("unet", "movq", "prior") else ():
        if not field.startswith("_"):
            assert loaded.config[field] == value or list(loaded.config[field]) == list(value), field


def test_imported_again_it_is_the_same(
    repositories: tuple[Path, Path], kandinsky: tuple[Path, Path], tmp_path: Path
) -> None:
    model, exported = kandinsky
    copies = []
    for home in repositories:
        copy = shutil.copytree(home, tmp_path / home.name)
        for name in ("prior", "image_encoder", "text_encoder", "tokenizer", "unet", "movq"):
            if (copy / name).exists():
                shutil.rmtree(copy / name)
                shutil.copytree(exported / name, copy / name)
        if (copy / "image_processor").exists():
            shutil.rmtree(copy / "image_processor")
            shutil.copytree(exported / "feature_extractor", copy / "image_processor")
        copies.append(copy)
    again = import_source(f"{copies[0]}+{copies[1]}", tmp_path / "again")
    for stage in ("clip", "prior", "decoder", "codec"):
        assert read_config(again / stage) == read_config(model / stage)
        states = [load_stage(folder / stage).state_dict() for folder in (again, model)]
        for key, value in states[1].items():
            assert torch.equal(states[0][key].nan_to_num(7), value.nan_to_num(7)), key


def randomised(module: Any, seed: int) -> Any:
    small.randomise(module, seed)
    return module.eval()


def clip_of_ours() -> Clip:
    config = ClipConfig(
        image=ViTConfig(size=16, patch=8, width=32, depth=2, heads=2, mlp_ratio=2),
        text=TextConfig(
            context=CONTEXT, width=WIDTH, depth=2, heads=2, vocabulary=300, activation="quick_gelu"
        ),
        embedding=WIDTH,
        loss="sigmoid",
    )
    return randomised(Clip.from_config(config), 1)


def prior_of_ours(**changes: Any) -> DiffusionPrior:
    network = PriorNetworkConfig(
        embedding=WIDTH,
        text_width=WIDTH,
        context=CONTEXT,
        transformer=TransformerConfig(width=32, depth=2, heads=2),
        **changes,
    )
    config = DiffusionPriorConfig(network=network, diffusion=DiffusionConfig(target="x0"))
    return randomised(DiffusionPrior(config), 2)


def decoder_of_ours(**changes: Any) -> Decoder:
    unet = UNetConfig(
        in_channels=3,
        out_channels=6,
        channels=32,
        multipliers=(1, 2),
        depth=1,
        attention=(2,),
        context_width=20,
        head_channels=16,
    ).updated(changes)
    network = DecoderNetworkConfig(
        unet=unet,
        embedding=WIDTH,
        image=ImageEmbeddingConfig(tokens=3, token_order="token_major"),
        text=ClipStatesConfig(states=WIDTH),
    )
    return randomised(Decoder(DecoderConfig(size=8, network=network)), 3)


def export(tmp_path: Path, **stages: nn.Module) -> tuple[list[str], dict[str, str]]:
    save_pipeline(tmp_path / "ours", stages, defaults=GenerateOptions(), card=Card(name="ours"))
    written, left = export_model(tmp_path / "ours", tmp_path / "theirs")
    return written, {one.what: one.why for one in left}


def captions(count: int) -> TextFeatures:
    ids = torch.zeros(count, 0, dtype=torch.int64)
    lengths = torch.tensor([2, 6, CONTEXT])[:count]
    return TextFeatures(
        torch.randn(count, WIDTH) * WIDTH**-0.5,
        torch.randn(count, CONTEXT, WIDTH),
        torch.arange(CONTEXT) < lengths[:, None],
        ids,
        ids.bool(),
    )


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, str]]:
    """A model of our own that fits once factors move into weights; its stages; what did not."""
    folder = tmp_path_factory.mktemp("own")
    stages = {"clip": clip_of_ours(), "prior": prior_of_ours(), "decoder": decoder_of_ours()}
    written, left = export(folder, **stages)
    assert written == ["text_encoder", "image_encoder", "prior", "decoder", "text_proj"]
    return folder / "theirs", stages, left


def test_our_clip_in_transformers(own: tuple) -> None:
    folder, stages, left = own
    clip, prompts = stages["clip"], ["", "a corgi", "ä long one, too long"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    tokens = tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
    ours = clip.encode_text(prompts, normalise=False, warn=False)
    assert torch.equal(tokens.attention_mask.bool(), ours.mask)
    text = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder")
    image = CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        encoded = text(tokens.input_ids)
        embedded = image(clip.pixels(pixels)).image_embeds
    assert error(ours.embedding, encoded.text_embeds) <= 2e-5
    assert error(ours.states[ours.mask], encoded.last_hidden_state[ours.mask]) <= 2e-5
    assert error(clip.encode_image(pixels, normalise=False), embedded) <= 2e-5
    assert "normalise what they return" in left["clip: bringing embeddings to unit length"]


def test_our_prior_in_diffusers(own: tuple) -> None:
    folder, stages, left = own
    prior, text = stages["prior"], captions(3)
    loaded = PriorTransformer.from_pretrained(folder / "prior")
    x, present = torch.randn(3, WIDTH), torch.zeros(3, dtype=torch.bool)
    for t in TIMES:
        with torch.no_grad():
            output = prior.network(x, torch.full((3,), t), text, present)
            expected = loaded(x, t, text.embedding, text.states, text.mask)
        assert error(output, expected.predicted_image_embedding) <= 2e-5
    assert error(prior.space.decode(x), loaded.post_process_latents(x).detach()) <= 2e-5
    assert "prior: its learned features of no text" in left
    assert "prior: bringing embeddings to unit length" in left


def test_our_decoder_in_diffusers(own: tuple) -> None:
    folder, stages, left = own
    network, text = stages["decoder"].network, captions(2)
    unet = UNet2DConditionModel.from_pretrained(folder / "decoder")
    projection = UnCLIPTextProjModel.from_pretrained(folder / "text_proj")
    x, z = torch.randn(2, 3, 8, 8), torch.randn(2, WIDTH) * WIDTH**-0.5
    present = torch.zeros(2, dtype=torch.bool)
    mask = torch.cat([present.new_ones(2, 3), text.mask], dim=1)
    null = projection.learned_classifier_free_guidance_embeddings.detach().expand(2, -1)
    for dropped, embedding in ((present, z), (~present, null)):
        for t in TIMES:
            with torch.no_grad():
                condition = network.condition(z, text, dropped, present)
                output = network(x, torch.full((2,), t), condition)
                states, added = projection(
                    image_embeddings=embedding,
                    prompt_embeds=text.embedding,
                    text_encoder_hidden_states=text.states,
                    do_classifier_free_guidance=False,
                )
                expected = unet(x, t, states, class_labels=added, attention_mask=mask).sample
            assert error(output, expected) <= 2e-5
    assert "decoder: its learned features of no text" in left


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    text = CaptionEncoderConfig(
        vocabulary=300, context=8, transformer=TransformerConfig(width=20, depth=1, heads=2)
    )
    config = decoder_of_ours(patch=2, groups=8).config
    network = config.network.model_copy(update={"text": text})
    decoder = Decoder(DecoderConfig(size=8, network=network))
    written, left = export(
        tmp_path, clip=clip_of_ours(), prior=prior_of_ours(causal=False), decoder=decoder
    )
    assert written == ["text_encoder", "image_encoder"]
    assert "patches of 2 px" in left["decoder"]
    assert "a caption encoder" in left["decoder"]
    assert "8 groups" in left["decoder"] or "other than 32 groups" in left["decoder"]
    assert "causal" in left["prior"]


def test_priors_that_do_not_diffuse(tmp_path: Path) -> None:
    network = OnePassPriorConfig().network.updated(
        {"embedding": WIDTH, "transformer": {"width": 16, "depth": 1, "heads": 2}}
    )
    one_pass = OnePassPrior(OnePassPriorConfig(network=network))
    _, left = export(tmp_path, clip=clip_of_ours(), prior=one_pass, decoder=decoder_of_ours())
    assert "one_pass" in left["prior"]


def test_nothing_is_overwritten_or_half_written(own: tuple, tmp_path: Path) -> None:
    folder = own[0]
    with pytest.raises(CheckpointError, match="exists"):
        export_model(folder.parent / "ours", folder)
    broken = shutil.copytree(folder.parent / "ours", tmp_path / "broken")
    weights = broken / "decoder" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged"):
        export_model(broken, tmp_path / "dest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]
