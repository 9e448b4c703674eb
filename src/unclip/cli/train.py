"""``unclip train``: one stage from captioned images into a model folder."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from unclip.cli.assignments import assignments_of
from unclip.cli.progress import found

if TYPE_CHECKING:
    from unclip.clip.clip import Clip
    from unclip.data.source import Source, StreamSource
    from unclip.options import GenerateOptions
    from unclip.presets import Preset
    from unclip.training.config import TrainingConfig

StageName = Literal["clip", "prior", "decoder", "upsampler"]
PriorKind = Literal["diffusion", "autoregressive"]
TOKENIZER_CAPTIONS = 200_000
UPSAMPLED = 256
"""Size the upsampler draws unless told otherwise."""


def train(
    stage: StageName,
    data: str,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("model"),
    preset: str = "emoji",
    kind: PriorKind | None = None,
    assignments: Annotated[list[str] | None, Parameter(name="--set")] = None,
    clip: str | None = None,
    start: Annotated[str | None, Parameter(name="--from")] = None,
    lora: int | None = None,
    embeddings: Path | None = None,
    to: int | None = None,
    caption_column: str | None = None,
    workers: int = 0,
    tracker: str | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    device: str | None = None,
) -> None:
    """Train one stage on captioned images; the same command again resumes it.

    CLIP comes first: prior and decoder stand on it. `unclip generate --model OUTPUT` draws then.

    For example:

        unclip train clip photos -o mine --set training.steps=20000
        unclip train prior photos -o other --clip mine --kind autoregressive
        unclip train decoder photos -o tuned --clip mine --from mine --lora 16

    Args:
        stage: Which stage.
        data: Images with .txt captions, metadata.jsonl or .csv, tar shards, or embeddings.
        output: The model folder; the stage is written there, its state to OUTPUT/training.
        preset: Sizes and recipe: tiny, emoji, emoji-gpu or paper.
        kind: Of the prior: diffusion (unless told otherwise) or autoregressive.
        assignments: Change a field of the stage's config, or of its training (training.lr=1e-4).
        clip: The CLIP of a prior or decoder: a stage folder, a model or its name; else OUTPUT/clip.
        start: What to fine-tune, instead of random weights: a stage folder or a model.
        lora: Fine-tune by an adapter of this rank instead of all weights; with --from.
        embeddings: A folder of the data's CLIP image embeddings; what is missing is computed.
        to: Size the upsampler draws: 256 (unless told otherwise) or 1024.
        caption_column: Name of the captions' column in metadata files.
        workers: Processes that prepare batches.
        tracker: Also log to tensorboard, or another tracker accelerate knows.
        max_minutes: Stop with a checkpoint after so long.
        max_steps: Stop with a checkpoint after so many steps.
        device: auto, cpu, cuda or mps.
    """
    from unclip.presets import preset as named
    from unclip.training.session import train_into

    _check(stage, start, lora, {"embeddings": embeddings, "clip": clip}, to, caption_column)
    to, speaks = to or UPSAMPLED, _speaks()
    sizes = _of_kind(named(preset), stage, kind, start)
    recipe, changes = _training(sizes, stage, to, assignments_of(assignments, "training.lr=1e-4"))
    encoder = _encoder(stage, clip, output, device)
    source = _embedded(_open(data, stage, caption_column), embeddings, encoder, speaks)
    base = _base(start, stage, to) if start is not None else None
    if base is None:
        network = _build(stage, output, sizes, source, encoder, to, changes, recipe)
    else:
        network = _fine_tuned(base, stage, encoder, changes, lora)
    report = train_into(
        output,
        network,
        source,
        recipe,
        clip=encoder,
        base=base,
        defaults=_sampling(sizes, stage, to, start),
        workers=workers,
        tracker=tracker,
        max_minutes=max_minutes,
        max_steps=max_steps,
        device=device,
    )
    if speaks:
        print(f"{stage}: {report.ending} after {report.step} steps, {report.images} images")


def _check(
    stage: StageName,
    start: str | None,
    lora: int | None,
    embedded: Mapping[str, object],
    to: int | None,
    caption_column: str | None,
) -> None:
    """Refuse options that would do nothing for this stage."""
    from unclip.errors import OptionError

    if lora is not None and start is None:
        raise OptionError("--lora changes a trained stage a little; say which with --from")
    given = next((name for name, value in embedded.items() if value is not None), None)
    if given is not None and stage not in ("prior", "decoder"):
        raise OptionError(f"--{given}: no {stage} reads image embeddings; leave it out")
    if to is not None and stage != "upsampler":
        raise OptionError(f"--to {to}: there are sizes of upsamplers, not of a {stage}")
    if caption_column is not None and stage == "upsampler":
        raise OptionError(f"--caption-column {caption_column}: no upsampler reads captions")


def _stage_folder(name: str, stage: str) -> Path:
    """The folder of a stage, given as such or as the model it is part of."""
    from unclip.checkpoint import is_stage, read_index
    from unclip.errors import CheckpointError

    model = found(name)
    if is_stage(model):
        return model
    index = read_index(model)
    folders: dict[str, str | None] = {
        "clip": index.clip,
        "prior": index.prior,
        "decoder": index.decoder,
    }
    folders |= {f"upsampler-{size}": folder for size, folder in index.upsamplers.items()}
    if (folder := folders.get(stage)) is None:
        raise CheckpointError(f"the model {name} has no {stage}")
    return model / folder


def _base(start: str, stage: StageName, to: int) -> Callable[[], Any]:
    """Loads the stage to fine-tune."""
    from unclip.checkpoint import load_stage

    folder = _stage_folder(start, _folder(stage, to))
    return lambda: load_stage(folder)


def _folder(stage: StageName, to: int) -> str:
    """What a stage is called in a model."""
    return f"upsampler-{to}" if stage == "upsampler" else stage


def _sampling(sizes: "Preset", stage: StageName, to: int, start: str | None) -> "GenerateOptions":
    """The preset's defaults; of a stage to fine-tune, those of the model it comes from.

    A stage of no model is left at the program's: nothing tells that the preset's suit it.
    """
    from unclip.options import GenerateOptions
    from unclip.weights.joined import resampled
    from unclip.weights.own import sampling_around

    if start is None:
        return sizes.defaults
    name = _folder(stage, to)
    known = sampling_around(_stage_folder(start, name), name)
    return resampled(sizes.defaults, known or GenerateOptions(), [name])


def _open(data: str, stage: StageName, caption_column: str | None) -> "Source | StreamSource":
    from unclip.data.open_data import open_data

    return open_data(data, with_captions=stage != "upsampler", caption_column=caption_column)


def _encoder(stage: StageName, clip: str | None, output: Path, device: str | None) -> "Clip | None":
    """The frozen CLIP, for the stages that are trained on one."""
    from unclip.errors import CheckpointError, OptionError
    from unclip.training.session import frozen

    if stage not in ("prior", "decoder"):
        return None
    if clip is not None:
        return frozen(_stage_folder(clip, "clip"), device)
    try:
        return frozen(output / "clip", device)
    except CheckpointError:
        if (output / "clip").exists():
            raise
        raise OptionError(
            f"{output} has no CLIP for a {stage} to stand on: train one there first, or name one "
            "with --clip"
        ) from None


def _embedded(
    source: "Source | StreamSource", folder: Path | None, clip: "Clip | None", speaks: bool
) -> "Source | StreamSource":
    from unclip.training.session import embedded

    if folder is None or clip is None:
        return source

    def tell(done: int, total: int) -> None:
        if speaks:
            logging.getLogger(__name__).info("embedded %d of %d images", done, total)

    return embedded(source, folder, clip, tell)


def _speaks() -> bool:
    """Whether this process tells how it goes: of several (torchrun) the first, for all."""
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s")
    if not first:
        warnings.simplefilter("ignore")
    return first


def _training(
    sizes: "Preset", stage: StageName, to: int, changes: dict[str, str]
) -> tuple[Any, dict[str, str]]:
    """The training config with its overrides, and the overrides left for the stage."""
    from unclip.errors import OptionError

    name = _folder(stage, to)
    if name not in sizes.training:
        known = ", ".join(str(size) for size in sizes.upsamplers)
        raise OptionError(f"--to {to}: this preset has upsamplers to {known}")
    prefix = "training."
    own = {k.removeprefix(prefix): v for k, v in changes.items() if k.startswith(prefix)}
    rest = {path: value for path, value in changes.items() if not path.startswith(prefix)}
    return sizes.training[name].override(own), rest


def _of_kind(
    sizes: "Preset", stage: StageName, kind: PriorKind | None, start: str | None
) -> "Preset":
    """The preset with the kind of prior that is asked for, or that is to be fine-tuned."""
    from unclip.checkpoint import read_config
    from unclip.errors import OptionError

    if kind is not None and stage != "prior":
        raise OptionError(f"--kind {kind}: there are kinds of priors, not of a {stage}")
    if stage == "prior" and start is not None:
        found = read_config(_stage_folder(start, stage))[1]
        known = getattr(found, "kind", None)
        if kind is not None and kind != known:
            raise OptionError(f"--kind {kind}: --from {start} holds a prior of kind {known}")
        kind = known
    return sizes.with_autoregressive() if kind == "autoregressive" else sizes


def _fine_tuned(
    base: Callable[[], Any],
    stage: StageName,
    clip: "Clip | None",
    changes: dict[str, str],
    lora: int | None,
) -> Any:
    """A trained stage to go on from, which fits what is asked for."""
    from unclip.errors import CheckpointError, OptionError
    from unclip.training.lora import add_adapter

    if changes:
        raise OptionError(
            f"--set {next(iter(changes))}: a stage given by --from keeps its config; leave this "
            "out, only training.… can be set"
        )
    network = base()
    if network.name != stage:
        raise CheckpointError(f"--from holds a {network.name}, not a {stage}")
    if clip is not None and network.config.network.embedding != clip.config.embedding:
        raise CheckpointError(
            f"--from takes embeddings of size {network.config.network.embedding}, "
            f"the CLIP makes {clip.config.embedding}; name the one it was trained on with --clip"
        )
    if lora is not None:
        add_adapter(network, lora)
    return network


def _build(
    stage: StageName,
    output: Path,
    sizes: "Preset",
    source: "Source | StreamSource",
    clip: "Clip | None",
    to: int,
    changes: dict[str, str],
    recipe: "TrainingConfig",
) -> Any:
    """A stage with its first, random weights."""
    import torch

    from unclip.clip.clip import Clip
    from unclip.decoder.decoder import Decoder
    from unclip.prior.kinds import build_prior
    from unclip.training.session import tokenizer_for
    from unclip.upsampler.upsampler import Upsampler

    torch.manual_seed(recipe.seed)
    if stage == "clip":
        config = sizes.clip.updated({"planned_batch": recipe.batch}).override(changes)
        words = tokenizer_for(output, lambda: _captions(source), config.text_tower().vocabulary)
        return Clip(config, words)
    if stage == "upsampler":
        return Upsampler(sizes.upsamplers[to].override(changes))
    assert clip is not None
    if stage == "prior":
        return build_prior(sizes.prior(clip.config).override(changes))
    return Decoder(sizes.decoder(clip.config).override(changes))


def _captions(source: "Source | StreamSource") -> list[str]:
    """Captions to learn the vocabulary from: the first of the data, in its own order."""
    from itertools import islice, takewhile

    from unclip.data.source import BadSample, Sample, StreamSource

    def samples() -> Iterator[Sample | BadSample]:
        if isinstance(source, StreamSource):
            first_epoch = takewhile(lambda item: item.epoch == 0, source.stream(seed=0))
            yield from (item.sample for item in first_epoch)
            return
        for index in range(len(source)):
            try:
                yield source.sample(index)
            except BadSample as bad:
                yield bad

    usable = (sample for sample in samples() if isinstance(sample, Sample))
    captions = (caption for sample in usable for caption in sample.captions)
    return list(islice(captions, TOKENIZER_CAPTIONS))
