"""ECLIPSE's prior against numbers of the authors' own code; see golden/README.md."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.checkpoint import load_stage, read_card, read_config, save_stage
from unclip.clip.clip import ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.identity import ClipIdentity
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig
from unclip.randomness import InjectedNoise, Randomness
from unclip.types import TextFeatures, finish
from unclip.weights.convert import import_source
from unclip.weights.family import Import, Part
from unclip.weights.joined import joined, names_of

GOLDEN = Path(__file__).parent / "golden" / "eclipse.safetensors"
CONFIG = {
    "_class_name": "PriorTransformer",
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "embedding_dim": 24,
    "num_embeddings": 9,
    "additional_embeddings": 3,
}
ONCE = SamplingOptions(steps=1)
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, golden: dict) -> Path:
    folder = tmp_path_factory.mktemp("eclipse")
    weights = {k.removeprefix("prior."): v for k, v in golden.items() if k.startswith("prior.")}
    save_file(weights, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def folder(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_source(repository, tmp_path_factory.mktemp("imported") / "prior")


def load(folder: Path, dtype: torch.dtype) -> OnePassPrior:

    return load_stage(folder).to(dtype).eval()


def captions(golden: dict, dtype: torch.dtype) -> TextFeatures:
    ids = torch.zeros(3, 0, dtype=torch.int64)
    return TextFeatures(
        golden["text"].to(dtype), golden["states"].to(dtype), golden["mask"], ids, ids.bool()
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_pass_equals_the_authors(golden: dict, folder: Path, dtype: torch.dtype) -> None:
    prior = load(folder, dtype)
    noise = InjectedNoise([golden["noise"].to(dtype)], batch=3)
    z_i = finish(prior.sample(captions(golden, dtype), ONCE, noise))
    expected = golden["image"]
    error = (z_i.double() - expected).abs().max() / expected.std()
    assert float(error) <= TOLERANCE[dtype]


def test_the_statistics_in_the_file_are_not_applied(golden: dict, folder: Path) -> None:
    # A PriorTransformer's own statistics are zero in the published files: applied, they would
    # make every embedding the same.
    prior = load(folder, torch.float64)
    assert prior.config.scaling == "none"
    assert not prior.config.renormalise
    assert golden["prior.clip_std"].abs().max() > 0


def test_what_is_imported(folder: Path) -> None:
    stage, config = read_config(folder)
    assert (stage, config.kind) == ("prior", "one_pass")
    assert config.clip == ClipIdentity(normalised=False)  # 24 numbers: no known CLIP
    assert read_card(folder).family == "eclipse"


@pytest.mark.parametrize("name", ["eclipse.pt", "eclipse.safetensors", "folder/model.safetensors"])
def test_weights_without_their_config_are_refused_with_advice(
    name: str, golden: dict, tmp_path: Path
) -> None:
    weights = {k.removeprefix("prior."): v for k, v in golden.items() if k.startswith("prior.")}
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if file.suffix == ".pt":
        torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, file)
    else:
        save_file(weights, file)
    source = file if file.parent == tmp_path else file.parent
    with pytest.raises(CheckpointError, match=r"an ECLIPSE prior alone, .* has its config\.json"):
        import_source(source, tmp_path / "made")
    save_file(
        weights | {"time_embedding.linear_1.weight": torch.ones(2)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(CheckpointError, match="a PriorTransformer alone"):
        import_source(tmp_path / "x.safetensors", tmp_path / "made")


@pytest.mark.parametrize(("embedding", "name"), [(768, "ViT-L/14"), (1280, "ViT-bigG/14")])
def test_the_clip_is_known_by_its_size(embedding: int, name: str) -> None:
    from unclip.weights.eclipse import CLIPS

    assert CLIPS[embedding].endswith(name)


def test_published_size() -> None:
    network = OnePassPriorConfig().network.updated({"embedding": 768, "text_width": 768})
    with torch.device("meta"):
        prior = OnePassPrior(OnePassPriorConfig(network=network))
    assert 33e6 < sum(parameter.numel() for parameter in prior.parameters()) < 34e6


def test_candidates_are_chosen_by_the_text(golden: dict, folder: Path) -> None:
    prior, text = load(folder, torch.float32), captions(golden, torch.float32)

    def draw(candidates: int) -> torch.Tensor:
        return finish(prior.sample(text, ONCE, Randomness([1, 2, 3]), candidates))

    one, many = draw(1), draw(6)
    scores = [(z_i * text.embedding).sum(-1) for z_i in (one, many)]
    assert (scores[1] >= scores[0] - 1e-5).all()
    assert (scores[1] > scores[0] + 1e-3).any()


def test_guidance_is_refused(golden: dict, folder: Path) -> None:
    prior = load(folder, torch.float32)
    sampling = prior.sample(
        captions(golden, torch.float32), SamplingOptions(guidance=4.0), Randomness([1, 2, 3])
    )
    with pytest.raises(OptionError, match="cannot be guided"):
        next(sampling)


def test_a_source_of_another_clip_is_refused(folder: Path) -> None:
    _, prior = read_config(folder)
    image = ViTConfig(size=16, patch=8, width=16, depth=1, heads=1)
    text = TextConfig(context=9, width=16, depth=1, heads=1, vocabulary=300)
    base = {"normalise": False, "identity": ClipIdentity(name="A", normalised=False)}

    def join(embedding: int, name: str) -> Import:
        clip = ClipConfig(image=image, text=text, embedding=embedding, **base)
        known = prior.model_copy(update={"clip": ClipIdentity(name=name, normalised=False)})
        parts = [Part("clip", clip, lambda: iter(())), Part("prior", known, lambda: iter(()))]
        return joined([Import([part], card=read_card(folder)) for part in parts])

    assert [part.name for part in join(24, "A").parts] == ["clip", "prior"]
    with pytest.raises(CheckpointError, match="size 24"):
        join(32, "A")
    with pytest.raises(CheckpointError, match="another CLIP"):
        join(24, "B")


def test_names_of_several_sources(tmp_path: Path) -> None:
    assert names_of("a/b+c/d") == ["a/b", "c/d"]
    (tmp_path / "a+b").mkdir()
    assert names_of(str(tmp_path / "a+b")) == [str(tmp_path / "a+b")]
    decoder = "kandinsky-community/kandinsky-2-2-decoder"
    assert names_of(decoder) == ["kandinsky-community/kandinsky-2-2-prior", decoder]


def test_round_trip_through_a_checkpoint(folder: Path, tmp_path: Path) -> None:
    prior = load(folder, torch.float32)
    save_stage(prior, tmp_path / "prior")
    again = load(tmp_path / "prior", torch.float32)
    assert again.config == prior.config
    assert all(torch.equal(again.state_dict()[k], v) for k, v in prior.state_dict().items())
