"""Karlo in its authors' layout: against diffusers' modules, and against the authors' own numbers.

The numbers were computed once with the authors' code; golden/karlo.md says how.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import karlo_authors_layout as layout
import karlo_ours
import karlo_small
import numpy as np
import pytest
import torch
from karlo_ours import apart, text_features
from PIL import Image
from torch import Tensor

from unclip.checkpoint import Card, Index, read_config, read_index, save_stage, write_index
from unclip.cli import run
from unclip.diffusion.sampling import SamplingOptions
from unclip.diffusion.spacing import strided
from unclip.errors import CheckpointError
from unclip.loading import load
from unclip.options import GenerateOptions
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig
from unclip.prior.options import PriorSampling
from unclip.randomness import InjectedNoise, Randomness
from unclip.runtime import choose_runtime
from unclip.types import TextFeatures, finish
from unclip.weights import karlo_authors
from unclip.weights.clip import transformers_part
from unclip.weights.convert import import_source
from unclip.weights.family import Part
from unclip.weights.source import Source, open_source

GOLDEN = Path(__file__).parent / "golden"
CONTEXT, D = 77, 32


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both towers in transformers' layout: the archive's own reader has its own tests."""
    folder = tmp_path_factory.mktemp("clip")
    karlo_small.text_encoder().save_pretrained(folder / "text_encoder")
    karlo_small.image_encoder().save_pretrained(folder / "image_encoder")
    karlo_small.tokenizer().save_pretrained(folder / "tokenizer")
    return folder


@pytest.fixture(autouse=True)
def _clip(monkeypatch: pytest.MonkeyPatch, clip_folder: Path) -> None:
    def part(source: Source, file: str, changes: dict) -> Part:
        del source, file
        towers = {"text": "text_encoder", "image": "image_encoder"}
        return transformers_part(open_source(str(clip_folder)), **towers, changes=changes)

    monkeypatch.setattr(karlo_authors, "openai_part", part)


def imported(folder: Path) -> dict[str, Any]:
    plan = karlo_ours.planned(folder, karlo_authors.FAMILY, "authors")
    return karlo_ours.stages(plan)


def captioned(folder: Path) -> Path:
    folder.mkdir()
    for number, colour in enumerate(("red", "green")):
        Image.new("RGB", (40, 40), colour).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {colour} square\n")
    return folder


# --- diffusers' modules, written in the authors' layout ---------------------------------------


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    return karlo_small.parts()


@pytest.fixture
def written(parts: dict[str, Any], tmp_path: Path) -> Path:
    return layout.write(parts, tmp_path / "karlo")


@pytest.mark.parametrize("prior", ["diffusion", "one_pass"])
def test_the_prior_is_fine_tuned_as_the_docs_say(
    prior: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/training.md for Karlo's own prior, docs/weights.md for ECLIPSE's on Karlo's CLIP."""
    monkeypatch.setenv("UNCLIP_DTYPE", "fp32")
    monkeypatch.setenv("UNCLIP_DEVICE", "cpu")
    photos, karlo = captioned(tmp_path / "photos"), tmp_path / "imported"
    assert run(["import", str(written), str(karlo)]) == 0
    start, guidance = karlo, 4.0
    if prior == "one_pass":
        start, guidance = eclipse(karlo, tmp_path), 1.0
    command = ["train", "prior", str(photos), "-o", str(tmp_path / "tuned"), "--clip", str(karlo)]
    command += ["--from", str(start), "--embeddings", str(tmp_path / "embedded")]
    command += ["--set", "training.batch=2", "--set", "training.steps=2"]
    command += ["--set", "training.optimizer=adafactor", "--set", "training.ema_half_life=0"]
    command += ["--set", "training.gradient_checkpointing=true"]
    assert run(command) == 0
    both = import_source(f"{karlo}+{tmp_path / 'tuned'}", tmp_path / "both")
    said = read_index(both).defaults
    assert (said.prior.guidance, said.candidates, said.decoder.steps) == (guidance, 1, 50)
    model = load(both, choose_runtime("cpu", "fp32"))
    text = model.encode_text(["a red square"])
    options = said.updated({"prior": {"steps": 1}})
    assert finish(model.embed(text, options, Randomness([0]))).isfinite().all()


def eclipse(karlo: Path, folder: Path) -> Path:
    """Karlo with a prior of one pass, as ``karlo+eclipse`` is imported."""
    theirs = read_config(karlo / "prior")[1]
    network = theirs.network.updated({"timestep": False, "unconditional": "none"})
    config = OnePassPriorConfig(
        network=network, scaling="none", renormalise=False, clip=theirs.clip
    )
    save_stage(OnePassPrior(config), folder / "eclipse" / "prior")
    defaults = GenerateOptions(candidates=1, prior=PriorSampling(steps=1, guidance=1))
    write_index(folder / "eclipse", Index(defaults=defaults, card=Card()).naming("prior"))
    return import_source(f"{karlo}+{folder / 'eclipse'}", folder / "karlo-eclipse")


def test_the_layout_is_read_back_as_diffusers_modules_compute(parts, written) -> None:
    ours = imported(written)
    generator = torch.Generator().manual_seed(0)
    x, z, embedding = (torch.randn(2, D, generator=generator) for _ in range(3))
    states = torch.randn(2, CONTEXT, D, generator=generator)
    mask = torch.arange(CONTEXT) < torch.tensor([[2], [30]])
    text, none = text_features(embedding, states, mask), torch.zeros(2, dtype=torch.bool)
    image, pair = (torch.randn(2, c, 16, 16, generator=generator) for c in (3, 6))
    t = torch.full((2,), 500)
    with torch.no_grad():
        expected = parts["prior"](x, 500, embedding, states, mask).predicted_image_embedding
        assert apart(ours["prior"].network(x, t, text, none), expected) <= 2e-5
        context, labels = parts["text_proj"](
            image_embeddings=z,
            prompt_embeds=embedding,
            text_encoder_hidden_states=states,
            do_classifier_free_guidance=False,
        )
        wide = torch.nn.functional.pad(mask, (4, 0), value=True)
        expected = parts["decoder"](image, 500, context, class_labels=labels, attention_mask=wide)
        network = ours["decoder"].network
        condition = network.condition(z, text, none, none)
        assert apart(network(image, t, condition), expected.sample) <= 2e-5
        for name in ("first", "last"):
            expected = parts[f"super_res_{name}"](pair, 500).sample
            mine = getattr(ours["upsampler-256"].network, name)(pair, t)
            assert apart(mine, expected) <= 2e-5
    assert torch.equal(ours["prior"].space.std, parts["prior"].clip_std[0])
    null = parts["text_proj"].learned_classifier_free_guidance_embeddings
    assert torch.equal(ours["decoder"].network.image.null, null)


def test_without_the_priors_files_it_varies_images(written: Path) -> None:
    for file in written.glob("prior*"):
        file.unlink()
    plan = karlo_ours.planned(written, karlo_authors.FAMILY, "authors")
    assert [part.name for part in plan.parts] == ["clip", "decoder", "upsampler-256"]


def test_missing_statistics_are_an_error(written: Path) -> None:
    (written / "ViT-L-14_stats.th").unlink()
    with pytest.raises(CheckpointError, match=r"ViT-L-14_stats\.th"):
        karlo_ours.planned(written, karlo_authors.FAMILY, "authors")


@pytest.mark.parametrize("change", ["extra", "missing"])
def test_a_tensor_too_many_or_too_few_is_named(parts, tmp_path: Path, change: str) -> None:
    contents = layout.files(parts)
    name = "decoder-ckpt-step=01000000-of-01000000.ckpt"
    state = contents[name]["state_dict"]
    if change == "extra":
        state["model.label_emb.weight"] = torch.zeros(2)
    else:
        del state["model.middle_block.1.encoder_kv.bias"]
    for file, content in contents.items():
        torch.save(content, tmp_path / file)
    plan = karlo_ours.planned(tmp_path, karlo_authors.FAMILY, "authors")
    tensor = "label_emb" if change == "extra" else r"encoder_kv|context\.bias"
    with pytest.raises((CheckpointError, RuntimeError), match=tensor):
        karlo_ours.stages(plan)


# --- the authors' own numbers ----------------------------------------------------------------


def values(name: str, shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
    """Numbers that belong to a name, as the script that made the golden arrays drew them."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy((drawn * scale).astype(np.float32))


def weight(key: str, shape: tuple[int, ...]) -> Tensor:
    fan = int(np.prod(shape[1:])) if len(shape) > 1 else 100
    gain = 1 if key.endswith("weight") and len(shape) == 1 else 0
    return values(key, shape, fan**-0.5) + gain


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN / "karlo.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def authors_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authors")
    shapes = json.loads((GOLDEN / "karlo_shapes.json").read_text())
    names = {
        "prior": "prior-ckpt-a",
        "decoder": "decoder-ckpt-b",
        "upsampler": "improved-sr-ckpt-c",
    }
    for stage, tensors in shapes.items():
        state = {key: weight(key, tuple(shape)) for key, shape in tensors.items()}
        torch.save({"state_dict": state}, folder / f"{names[stage]}.ckpt")
    mean, std = values("clip_mean", (D,)), values("clip_std", (D,)).abs() + 0.5
    torch.save((mean, std), folder / "ViT-L-14_stats.th")
    return folder


@pytest.fixture
def theirs(authors_files: Path) -> dict[str, Any]:
    stages = imported(authors_files)
    empty = golden_text(["empty"])
    stages["prior"].network.unconditional.store(empty)
    stages["decoder"].network.text.unconditional.store(empty)
    return stages


def golden_text(kind: list[str]) -> TextFeatures:
    if kind == ["empty"]:
        mask = torch.arange(CONTEXT)[None] < 2
        return text_features(
            values("empty embedding", (1, D)), values("empty states", (1, CONTEXT, D)), mask
        )
    mask = torch.arange(CONTEXT) < torch.tensor([[2], [30], [77]])
    embedding, states = values("text embedding", (3, D)), values("text states", (3, CONTEXT, D))
    return text_features(embedding, states, mask)


@pytest.mark.parametrize("t", [0, 500, 999])
def test_networks_compute_what_the_authors_networks_do(theirs, golden, record_property, t) -> None:
    text, none, at = golden_text([]), torch.zeros(3, dtype=torch.bool), torch.full((3,), t)
    decoder, refiner = theirs["decoder"].network, theirs["upsampler-256"].network
    pair = torch.cat([values("x upsampler", (3, 3, 32, 32)), values("low", (3, 3, 32, 32))], 1)
    with torch.no_grad():
        condition = decoder.condition(values("image embedding", (3, D)), text, none, none)
        mine = {
            "prior": theirs["prior"].network(values("x prior", (3, D)), at, text, none),
            "decoder": decoder(values("x decoder", (3, 3, 16, 16)), at, condition),
            "upsampler first": refiner.first(pair, at),
            "upsampler last": refiner.last(pair, at),
        }
    for name, output in mine.items():
        error = apart(output, golden[f"{name} {t}"])
        record_property(f"authors {name} {t}", error)
        assert error <= 2e-5, name


def walk(stage: str, theirs: dict[str, Any], steps: int) -> tuple[Any, SamplingOptions]:
    """The sampler of a stage as a function of the noise and options, and its published options."""
    text = golden_text([]).take(torch.tensor([1, 2]))
    z = values("image embedding", (3, D))[1:]
    if stage == "prior":
        run = lambda noise, options: theirs["prior"].sample(text, options, noise, 1)  # noqa: E731
        return run, SamplingOptions(steps=steps, guidance=4, clip="static", bound=10)
    if stage == "decoder":
        # Their small decoder draws 16 px; the published size is not in the weights.
        run = lambda noise, options: theirs["decoder"].sample(  # noqa: E731
            z, text, options, noise, x_T=noise.normal(3, 16, 16)
        )
        return run, SamplingOptions(steps=steps, guidance=8)
    low = values("low", (3, 3, 32, 32))[:2].clamp(-1, 1)
    stage_ = theirs["upsampler-256"]

    def run(noise: InjectedNoise, options: SamplingOptions) -> Any:
        """Without the enlargement, which the golden run was given done."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unclip.upsampler.upsampler.enlarge", lambda images, factor: images)
            steps = stage_.sample(low, options, noise)
            yield from steps

    return run, SamplingOptions(steps=steps)


@pytest.mark.parametrize(
    ("stage", "steps", "shape"),
    [
        ("prior", 25, (D,)),
        ("prior", 21, (D,)),
        ("decoder", 25, (3, 16, 16)),
        ("upsampler", 7, (3, 32, 32)),
    ],
)
def test_each_step_from_the_authors_x_t(
    theirs, golden, record_property, stage: str, steps: int, shape: tuple[int, ...]
) -> None:
    """With their timesteps, tables, guidance, clamps and two networks; 21 is one of the counts
    for which diffusers visits others."""
    trail = golden[f"{stage} {steps} steps"]
    run, options = walk(stage, theirs, steps)
    visited = strided(1000, steps, "accumulated")[::-1]
    errors = []
    for i, t in enumerate(visited):
        goal = visited[i + 1] if i + 1 < steps else None
        spacing = (t,) if goal is None else (goal, t)
        noise = InjectedNoise([trail[i], values(f"{stage} noise {i + 1}", (2, *shape))])
        single = options.model_copy(update={"spacing": spacing, "steps": len(spacing)})
        errors.append(apart(next(run(noise, single)).sample, trail[i + 1]))
    record_property(f"authors {stage} {steps} teacher-forced", max(errors))
    # Where noise is predicted, x̂0 at t = 999 is a difference times 20,000, and float32's rounding
    # with it; a few pixels stay inside the clamp and show it, each processor others.
    rounding = 20_000 * torch.finfo(torch.float32).eps
    assert errors[0] <= (1e-5 if stage == "prior" else rounding), errors
    assert max(errors[1:]) <= 5e-5, errors


def test_the_priors_result_leaves_standardised_space_unnormalised(theirs, golden) -> None:
    trail = golden["prior 25 steps"]
    decoded = theirs["prior"].space.decode(trail[-1])
    torch.testing.assert_close(decoded, golden["prior 25 result"], rtol=1e-6, atol=1e-6)


def test_step_counts_are_the_authors(golden) -> None:
    for steps, digest in enumerate(golden["timesteps crc32"].tolist(), start=1):
        visited = np.array(strided(1000, steps, "accumulated"), dtype=np.int16)
        assert zlib.crc32(visited.tobytes()) == digest, steps
    for steps in (1, 7, 21, 23, 25, 31, 50, 333):
        assert list(strided(1000, steps, "accumulated")) == golden[f"timesteps {steps}"].tolist()


def test_the_golden_files_are_small() -> None:
    assert sum(file.stat().st_size for file in GOLDEN.glob("karlo*")) < 2**20
