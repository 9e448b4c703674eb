"""Kandinsky 2.2 against diffusers: networks, each step, whole pipelines with the same noise."""

import json
import shutil
from pathlib import Path
from typing import Any

import kandinsky_small as small
import pytest
import torch
from diffusers import (
    KandinskyV22Pipeline,
    KandinskyV22PriorPipeline,
)
from diffusers.pipelines.kandinsky2_2 import pipeline_kandinsky2_2, pipeline_kandinsky2_2_prior
from diffusers.schedulers import scheduling_ddpm, scheduling_unclip
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from unclip.checkpoint import WEIGHTS, load_pipeline, load_stage, read_config, read_index
from unclip.decoder.decoder import Decoder
from unclip.diffusion.sampling import sample
from unclip.diffusion.schedule import cosine, linear
from unclip.errors import CheckpointError, OptionError
from unclip.images import to_tensor
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig
from unclip.randomness import InjectedNoise
from unclip.runtime import choose_runtime
from unclip.types import TextFeatures, finish
from unclip.weights.convert import import_source
from unclip.weights.eclipse import ECLIPSE
from unclip.weights.rename import renamed
from unclip.weights.tables import inverted
from unclip.weights.tensors import Tensors

TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-5}
TIMES = (0, 500, 999)
PRIOR_STEPS, DECODER_STEPS = 25, 25
PROMPT = "a corgi"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    return small.parts()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return small.save(tmp_path_factory.mktemp("kandinsky"), small.parts(torch.float32))


@pytest.fixture(scope="module")
def folder(repositories: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    prior, decoder = repositories
    dest = tmp_path_factory.mktemp("imported") / "kandinsky"
    return import_source(f"{prior}+{decoder}", dest)


def model(folder: Path, dtype: torch.dtype = torch.float64) -> UnCLIP:
    """The imported pipeline, computing in ``dtype``."""
    pipeline = load_pipeline(folder, choose_runtime("cpu", "fp32"))
    assert pipeline.latents is not None
    slots = (pipeline.clip, pipeline.prior, pipeline.decoder, pipeline.latents.codec)
    for slot, name in zip(slots, ("clip", "prior", "decoder", "codec"), strict=True):
        stage = load_stage(folder / name).to(dtype).eval()
        slot._stage = stage
    return pipeline


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().std())


def text_features(embedding: Tensor, states: Tensor, mask: Tensor) -> TextFeatures:
    ids = torch.zeros(len(mask), 0, dtype=torch.int64)
    return TextFeatures(embedding, states, mask, ids, ids.bool())


def noises(count: int, *shape: int) -> list[Tensor]:
    return [torch.randn(1, *shape, dtype=torch.float64) for _ in range(count)]


def pipelines(theirs: dict[str, Any], tmp_path: Path) -> tuple[Any, Any]:
    """The two of diffusers, with tables in float64."""
    first, second = small.schedulers()
    small.in_float64(first, cosine(1000).beta)
    small.in_float64(second, linear(1000, (0.00085, 0.012)).beta)
    prior = KandinskyV22PriorPipeline(
        prior=theirs["prior"],
        image_encoder=theirs["image_encoder"],
        text_encoder=theirs["text_encoder"],
        tokenizer=small.tokenizer(tmp_path / "vocabulary"),
        scheduler=first,
        image_processor=small.processor(),
    )
    decoder = KandinskyV22Pipeline(unet=theirs["unet"], scheduler=second, movq=theirs["movq"])
    for pipeline in (prior, decoder):
        pipeline.set_progress_bar_config(disable=True)
    return prior, decoder


def draw_prior(pipeline: Any, call: Any, drawn: list[Tensor]) -> Any:
    with small.injected(pipeline_kandinsky2_2_prior, scheduling_unclip, noises=drawn):
        return call(pipeline)


def draw_decoder(pipeline: Any, drawn: list[Tensor], **options: Any) -> Any:
    with small.injected(pipeline_kandinsky2_2, scheduling_ddpm, noises=drawn):
        return pipeline(output_type="pt", guidance_scale=4.0, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_unet(theirs: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    unet, network = theirs["unet"].to(dtype), load_stage(folder / "decoder").network.to(dtype)
    x, z = torch.randn(2, 4, 8, 8, dtype=dtype), torch.randn(2, small.EMBEDDING, dtype=dtype)
    here = torch.zeros(2, dtype=torch.bool)
    for t in TIMES:
        with torch.no_grad():
            expected = unet(x, t, None, added_cond_kwargs={"image_embeds": z}).sample
            condition = network.condition(z, None, here, here)
            output = network(x, torch.full((2,), t), condition)
        assert error(output, expected) <= TOLERANCE[dtype]
    theirs["unet"].double()


def test_token_order_matters_and_is_not_karlos(theirs: dict[str, Any], folder: Path) -> None:
    _, config = read_config(folder / "decoder")
    state = load_stage(folder / "decoder").state_dict()
    assert config.network.image.token_order == "token_major"
    values = {"network": {"image": {"token_order": "channel_major"}}}
    swapped = Decoder(config.updated(values)).double()
    swapped.load_state_dict(state)
    x, z = torch.randn(1, 4, 8, 8).double(), torch.randn(1, small.EMBEDDING).double()
    here = torch.zeros(1, dtype=torch.bool)
    with torch.no_grad():
        expected = theirs["unet"](x, 500, None, added_cond_kwargs={"image_embeds": z}).sample
        condition = swapped.network.condition(z, None, here, here)
        output = swapped.network(x, torch.tensor([500]), condition)
    assert error(output, expected) > 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_prior_network(theirs: dict[str, Any], folder: Path, dtype: torch.dtype) -> None:
    prior, network = theirs["prior"].to(dtype), load_stage(folder / "prior").network.to(dtype)
    lengths = torch.tensor([2, 9, small.CONTEXT])
    mask = torch.arange(small.CONTEXT) < lengths[:, None]
    x, z_t = torch.randn(2, 3, small.EMBEDDING, dtype=dtype)
    states = torch.randn(3, small.CONTEXT, small.EMBEDDING, dtype=dtype)
    text, present = text_features(z_t, states, mask), torch.zeros(3, dtype=torch.bool)
    for t in TIMES:
        with torch.no_grad():
            expected = prior(x, t, z_t, states, mask).predicted_image_embedding
            output = network(x, torch.full((3,), t), text, present)
        assert error(output, expected) <= TOLERANCE[dtype]
    theirs["prior"].double()


def test_text_and_images_are_encoded_as_by_transformers(
    theirs: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    prompts = ["", "a corgi", "cor gi " * 20]
    tokens = small.tokenizer(tmp_path)(
        prompts,
        padding="max_length",
        truncation=True,
        max_length=small.CONTEXT,
        return_tensors="pt",
    )
    mask = tokens.attention_mask.bool()
    pipeline = model(folder)
    with torch.no_grad():
        expected = theirs["text_encoder"](tokens.input_ids)
    with pytest.warns(UserWarning, match="cut"):
        text = pipeline.encode_text(prompts)
    assert torch.equal(text.mask, mask)
    assert error(text.embedding, expected.text_embeds) <= 1e-6
    assert error(text.states[mask], expected.last_hidden_state[mask]) <= 1e-6
    pixels = torch.randint(256, (40, 30, 3), dtype=torch.uint8).numpy()
    picture = Image.fromarray(pixels)
    square = small.processor()(picture, return_tensors="pt").pixel_values.double()
    with torch.no_grad():
        expected = theirs["image_encoder"](square).image_embeds
        nothing = theirs["image_encoder"](torch.zeros(1, 3, 16, 16).double()).image_embeds
    # Pillow rounds a resized picture to 8 bits, which moves pixels by half a level.
    resized = pipeline.encode_image(to_tensor(picture)[None].double())
    assert error(resized, expected) <= 0.05
    exact = to_tensor(picture.crop((0, 0, 16, 16)))[None].double()
    square = small.processor()(picture.crop((0, 0, 16, 16)), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = theirs["image_encoder"](square.double()).image_embeds
    assert error(pipeline.encode_image(exact), expected) <= 1e-5  # theirs standardises in float32
    stored = load_stage(folder / "decoder").network.image.stored.embedding
    assert error(stored, nothing[0]) <= 2e-5


def test_every_step_of_the_prior(theirs: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    pipeline, _ = pipelines(theirs, tmp_path)
    drawn = noises(PRIOR_STEPS, small.EMBEDDING)
    visited = [drawn[0]]

    def keep(_: Any, __: int, ___: int, values: dict) -> dict:
        visited.append(values["latents"].clone())
        return {}

    draw_prior(pipeline, lambda p: p(PROMPT, callback_on_step_end=keep), drawn)
    ours = model(folder, torch.float32)
    assert ours.prior is not None
    with ours.prior.use() as prior:
        text = ours.encode_text([PROMPT])
        options = ours.defaults.prior
        assert (options.steps, options.guidance, options.bound) == (PRIOR_STEPS, 4.0, 10.0)
        network = prior._denoiser(text, options.guidance)
        for index in range(PRIOR_STEPS):
            steps = sample(
                prior.process,
                network,
                visited[index].float(),
                options.updated({"skip": index}),
                InjectedNoise(noise.float() for noise in drawn[index + 1 :]),
                stage="prior",
            )
            assert error(next(steps).sample, visited[index + 1]) <= 1e-4


def test_every_step_of_the_decoder(theirs: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    _, pipeline = pipelines(theirs, tmp_path)
    drawn, z, nothing = noises(DECODER_STEPS, 4, 8, 8), *noises(2, small.EMBEDDING)
    visited = [drawn[0]]

    def keep(_: Any, __: int, ___: int, values: dict) -> dict:
        visited.append(values["latents"].clone())
        return {}

    draw_decoder(
        pipeline,
        drawn,
        image_embeds=z,
        negative_image_embeds=nothing,
        height=16,
        width=16,
        num_inference_steps=DECODER_STEPS,
        callback_on_step_end=keep,
    )
    ours = model(folder, torch.float32)
    with ours.decoder.use() as decoder:
        decoder.network.image.stored.embedding.copy_(nothing[0])
        for index in range(DECODER_STEPS):
            options = ours.defaults.decoder.updated({"steps": DECODER_STEPS, "skip": index})
            steps = decoder.sample(
                z.float(),
                None,
                options,
                InjectedNoise(noise.float() for noise in drawn[index + 1 :]),
                x_T=visited[index].float(),
            )
            assert error(next(steps).sample, visited[index + 1]) <= 1e-4


def test_text_to_image(theirs: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    first, second = pipelines(theirs, tmp_path)
    prior_noise, noise = noises(PRIOR_STEPS, small.EMBEDDING), noises(DECODER_STEPS, 4, 12, 8)
    z, nothing = draw_prior(first, lambda p: p(PROMPT).to_tuple(), list(prior_noise))
    expected = draw_decoder(
        second,
        list(noise),
        image_embeds=z,
        negative_image_embeds=nothing,
        height=24,
        width=16,
        num_inference_steps=DECODER_STEPS,
    ).images
    ours = model(folder)
    options = ours.complete(
        GenerateOptions.parse(
            {"size": 24, "width": 16, "decoder": {"steps": DECODER_STEPS}}, source="test"
        )
    )
    text = ours.encode_text([PROMPT])
    embedding = finish(ours.embed(text, options, InjectedNoise(prior_noise)))
    assert error(embedding, z) <= 1e-3
    images = finish(ours.decode(embedding, text, options, InjectedNoise(noise)))
    assert images.shape == (1, 3, 24, 16)
    assert error(images, expected) <= 1e-3
    assert (expected.abs() < 1).float().mean() >= 0.5


def test_mixing_images_and_text(theirs: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    first, _ = pipelines(theirs, tmp_path)
    picture = Image.fromarray(torch.randint(256, (16, 16, 3), dtype=torch.uint8).numpy())
    noise = noises(2 * PRIOR_STEPS, small.EMBEDDING)  # they also draw for the empty prompt
    mixed = draw_prior(first, lambda p: p.interpolate([picture, PROMPT], [0.3, 0.7]), list(noise))
    ours = model(folder)
    options = ours.complete(GenerateOptions())
    z_i = ours.encode_image(to_tensor(picture)[None].double())
    drawn = finish(ours.embed(ours.encode_text([PROMPT]), options, InjectedNoise(noise)))
    assert error(0.3 * z_i + 0.7 * drawn, mixed.image_embeds) <= 1e-3


def test_generating(folder: Path) -> None:
    pipeline = load_pipeline(folder, choose_runtime("cpu", "fp32"), residency="one")
    few = {"prior": {"steps": 2}, "decoder": {"steps": 2}}
    options = GenerateOptions.parse(few | {"width": 24}, source="test")
    [drawn] = pipeline.generate(PROMPT, options)
    assert drawn.image.size == (24, 16)
    assert drawn.score is not None
    with pytest.raises(OptionError, match="multiples of 4"):
        pipeline.generate(PROMPT, GenerateOptions(size=18))


def test_a_prior_of_one_pass_takes_its_place(
    repositories: tuple[Path, Path], folder: Path, tmp_path: Path
) -> None:
    sizes = {"embedding": small.EMBEDDING, "text_width": small.EMBEDDING, "text_scale": 1}
    sizes |= {"context": small.CONTEXT, "transformer": {"width": 32, "depth": 2, "heads": 2}}
    network = OnePassPriorConfig().network.updated(sizes)
    prior = OnePassPrior(OnePassPriorConfig(network=network, scaling="none", renormalise=False))
    small.randomise(prior, 9)
    eclipse = tmp_path / "eclipse"
    eclipse.mkdir()
    theirs = renamed(Tensors.of(prior.state_dict()), inverted(ECLIPSE), name="prior")
    save_file(dict(theirs), eclipse / "diffusion_pytorch_model.safetensors")
    values = {**small.PRIOR, "_class_name": "PriorTransformer", "additional_embeddings": 3}
    (eclipse / "config.json").write_text(json.dumps(values))

    sources = "+".join(map(str, (repositories[0], eclipse, repositories[1])))
    model = import_source(sources, tmp_path / "model")
    assert read_index(model).card.family == "kandinsky-prior+eclipse+kandinsky-decoder"
    _in_place_of_an_imported_prior(folder, eclipse, model)
    pipeline = load_pipeline(model, choose_runtime("cpu", "fp32"))
    options = pipeline.complete(GenerateOptions.parse({"decoder": {"steps": 2}}, source="test"))
    assert (options.prior.guidance, options.candidates, options.decoder.guidance) == (1, 1, 4)
    noise, text = torch.randn(1, small.EMBEDDING), pipeline.encode_text([PROMPT])
    z_i = finish(pipeline.embed(text, options, InjectedNoise([noise])))
    expected = finish(prior.sample(text, options.prior, InjectedNoise([noise])))
    assert error(z_i, expected) <= 2e-5
    assert pipeline.generate(PROMPT, options)[0].image.size == (16, 16)


def _in_place_of_an_imported_prior(folder: Path, eclipse: Path, expected: Path) -> None:
    """Joined with what is imported already, as published or imported itself, it is the same."""
    alone = import_source(eclipse, eclipse.parent / "alone")
    for number, source in enumerate((eclipse, alone)):
        joined = import_source(f"{folder}+{source}", eclipse.parent / f"joined-{number}")
        options = read_index(joined).defaults.over(GenerateOptions())
        assert (options.prior.guidance, options.decoder.guidance) == (1, 4)
        for name in ("clip", "prior", "decoder", "codec"):
            mine, theirs = (load_file(one / name / WEIGHTS) for one in (joined, expected))
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[key], theirs[key]) for key in mine)
            assert read_config(joined / name) == read_config(expected / name)


def test_the_card_and_defaults(folder: Path) -> None:
    index = read_index(folder)
    assert index.card.licence == "Apache-2.0"
    assert index.card.family == "kandinsky-prior+kandinsky-decoder"
    assert index.codec == "codec"
    decoder = index.defaults.decoder
    assert (decoder.steps, decoder.spacing, decoder.clip) == (50, "leading", "dynamic")
    assert (decoder.percentile, decoder.limit, decoder.bound) == (0.95, 2.0, 1.0)


def test_a_decoder_without_its_clip_is_refused(
    repositories: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"PRIOR\+DECODER"):
        import_source(repositories[1], tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_statistics_that_are_zero_are_refused(
    repositories: tuple[Path, Path], tmp_path: Path
) -> None:
    prior = small.parts(torch.float32)["prior"]
    with torch.no_grad():
        prior.clip_std.zero_()
    copy = shutil.copytree(repositories[0], tmp_path / "prior")
    prior.save_pretrained(copy / "prior")
    with pytest.raises(CheckpointError, match="clip_std"):
        import_source(copy, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_decoders_of_other_tasks_are_refused(
    repositories: tuple[Path, Path], tmp_path: Path
) -> None:
    prior, decoder = repositories
    copy = shutil.copytree(decoder, tmp_path / "inpaint")
    values = json.loads((copy / "unet/config.json").read_text()) | {"in_channels": 9}
    (copy / "unet/config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="text to image"):
        import_source(f"{prior}+{copy}", tmp_path / "model")
