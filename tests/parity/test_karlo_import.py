"""Karlo imported as a user would: folders of both pipelines, in every form they are stored in."""

import json
import shutil
from pathlib import Path
from typing import Any

import karlo_small
import pytest
import torch
from safetensors.torch import load_file, save_file

import unclip
from unclip.checkpoint import load_stage, read_config, read_index, write_index
from unclip.errors import CheckpointError
from unclip.options import GenerateOptions
from unclip.randomness import Randomness
from unclip.runtime import choose_runtime
from unclip.types import finish
from unclip.weights.convert import import_source

FEW = GenerateOptions.parse(
    {"prior": {"steps": 2}, "decoder": {"steps": 2}, "upsampler": {"32": {"steps": 2}}},
    source="test",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text-to-image folder: no image tower."""
    folder = tmp_path_factory.mktemp("published")
    return karlo_small.save(karlo_small.pipeline(), folder / "karlo")


@pytest.fixture(scope="module")
def varying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image-variation folder: no prior."""
    folder = tmp_path_factory.mktemp("varying")
    return karlo_small.save(karlo_small.pipeline(variation=True), folder / "karlo")


@pytest.fixture(scope="module")
def model(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_source(published, tmp_path_factory.mktemp("models") / "karlo")


@pytest.fixture(scope="module")
def variations(varying: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "variations"
    return import_source(varying, folder, reference="diffusers")


def load(folder: Path) -> Any:
    return unclip.load(folder, choose_runtime("cpu", "fp32"))


def test_a_prompt_becomes_an_image(model: Path) -> None:
    (generated,) = load(model).generate("a red fox", FEW)
    assert generated.image.size == (32, 32)
    assert generated.score is None  # the folder has no image tower to judge with
    (again,) = load(model).generate("a red fox", FEW)
    assert generated.image.tobytes() == again.image.tobytes()


def test_the_model_says_what_it_is(model: Path) -> None:
    index = read_index(model)
    assert index.card.licence == "CreativeML OpenRAIL-M"
    assert (index.card.family, index.card.reference) == ("karlo-diffusers", "authors")
    assert index.defaults.prior.bound == 10
    identities = [read_config(model / name)[1] for name in ("prior", "decoder")]
    clip = read_config(model / "clip")[1].identity
    assert all(config.clip == clip for config in identities)
    assert clip.text
    assert clip.image is None
    assert not clip.normalised


def test_an_image_is_varied_without_a_prior(variations: Path) -> None:
    pipeline = load(variations)
    with pytest.raises(CheckpointError, match="no prior"):
        pipeline.generate("a red fox", FEW)
    images = torch.rand(2, 3, 40, 56) * 2 - 1
    z = pipeline.encode_image(images)
    assert z.norm(dim=1).std() > 0  # not of unit length
    options = FEW.over(pipeline.defaults)
    varied = finish(pipeline.decode(z, None, options, Randomness([0, 1])))
    assert varied.shape == (2, 3, 32, 32)
    assert varied.isfinite().all()


def test_references_differ_on_images_that_are_not_square(varying: Path, tmp_path: Path) -> None:
    """The authors squash, diffusers crops; a square of the tower's size is the same to both."""
    wide, square = torch.rand(1, 3, 40, 64) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    z = {}
    for reference in ("authors", "diffusers"):
        folder = import_source(varying, tmp_path / reference, reference=reference)
        pipeline = load(folder)
        z[reference] = [pipeline.encode_image(image) for image in (wide, square)]
    assert torch.equal(z["authors"][1], z["diffusers"][1])
    assert not torch.allclose(z["authors"][0], z["diffusers"][0], atol=1e-2)


# --- how it is stored --------------------------------------------------------------------------


def as_pickle(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), folder / "diffusion_pytorch_model.bin")
    file.unlink()


def in_shards(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    keys, places = sorted(state), {}
    for number, part in enumerate((keys[::2], keys[1::2]), start=1):
        name = f"diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        save_file({key: state[key] for key in part}, folder / name)
        places |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / f"{file.name}.index.json").write_text(json.dumps(index))
    file.unlink()


def as_variant(folder: Path) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    half = {key: tensor.half() for key, tensor in load_file(file).items()}
    save_file(half, folder / "diffusion_pytorch_model.fp16.safetensors")
    file.unlink()


@pytest.mark.parametrize("stored", [as_pickle, in_shards, as_variant])
def test_forms_of_storage(published: Path, model: Path, tmp_path: Path, stored: Any) -> None:
    folder = shutil.copytree(published, tmp_path / "karlo")
    for name in ("prior", "decoder", "text_proj", "super_res_first"):
        stored(folder / name)
    written = import_source(folder, tmp_path / "model")
    for stage in ("prior", "decoder"):
        mine, known = (load_stage(at / stage).state_dict() for at in (written, model))
        loose = 1e-3 if stored is as_variant else 0
        for key, tensor in known.items():
            torch.testing.assert_close(
                mine[key].float(), tensor, rtol=loose, atol=loose, equal_nan=True
            )


@pytest.mark.parametrize("prefix", ["text_model.", ""], ids=["old", "new"])
def test_either_names_of_the_text_tower(
    published: Path, model: Path, tmp_path: Path, prefix: str
) -> None:
    """transformers 5 writes some towers without the prefix; old files hold a table of positions."""
    folder = shutil.copytree(published, tmp_path / "karlo")
    file = folder / "text_encoder" / "model.safetensors"
    state = {key.removeprefix("text_model."): tensor for key, tensor in load_file(file).items()}
    projection = {"text_projection.weight": state.pop("text_projection.weight")}
    state["embeddings.position_ids"] = torch.arange(77)[None]
    save_file({prefix + key: tensor for key, tensor in state.items()} | projection, file)
    written = import_source(folder, tmp_path / "model")
    assert read_config(written / "clip")[1].identity == read_config(model / "clip")[1].identity


# --- what is wrong with it --------------------------------------------------------------------


def without(folder: Path, key: str) -> None:
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    del state[key]
    save_file(state, file)


def test_missing_statistics_are_an_error_not_zeros(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "karlo")
    without(folder / "prior", "clip_std")
    with pytest.raises(CheckpointError, match=r"space\.std|clip_std"):
        import_source(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        ("decoder", {"act_fn": "gelu"}, "act_fn"),
        ("decoder", {"down_block_types": ["DownBlock2D"] * 2}, "DownBlock2D"),
        ("prior", {"additional_embeddings": 3}, "additional_embeddings"),
        ("super_res_last", {"layers_per_block": 2}, "differ in shape"),
        ("decoder", {"block_out_channels": None}, "decoder/config.json"),
    ],
)
def test_a_wrong_config_is_named(
    published: Path, tmp_path: Path, file: str, change: dict[str, Any], named: str
) -> None:
    folder = shutil.copytree(published, tmp_path / "karlo")
    config = folder / file / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(CheckpointError, match=named):
        import_source(folder, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_missing_part_is_named(published: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(published, tmp_path / "karlo")
    shutil.rmtree(folder / "text_proj")
    with pytest.raises(CheckpointError, match="text_proj"):
        import_source(folder, tmp_path / "model")


# --- mixing ------------------------------------------------------------------------------------


def with_prior_of(model: Path, other: Path, dest: Path) -> Path:
    shutil.copytree(model, dest)
    shutil.copytree(other / "prior", dest / "prior")
    write_index(dest, read_index(dest).model_copy(update={"prior": "prior"}))
    return dest


def test_a_prior_serves_another_model_of_the_same_clip(
    model: Path, variations: Path, tmp_path: Path
) -> None:
    mixed = load(with_prior_of(variations, model, tmp_path / "mixed"))
    options = FEW.updated({"prior": {"clip": "static", "bound": 10}})
    (generated,) = mixed.generate("a red fox", options)
    assert generated.score is not None  # this one has an image tower


def test_a_prior_of_another_clip_is_refused(
    published: Path, variations: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(published, tmp_path / "karlo")
    file = folder / "text_encoder" / "model.safetensors"
    save_file({key: -tensor for key, tensor in load_file(file).items()}, file)
    other = import_source(folder, tmp_path / "other")
    mixed = with_prior_of(variations, other, tmp_path / "mixed")
    with pytest.raises(CheckpointError, match="the prior was trained on another CLIP"):
        load(mixed)
