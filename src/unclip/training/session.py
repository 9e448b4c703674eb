"""A stage trained into a model folder: loader, frozen CLIP, previews, and where things lie.

model/clip  model/prior  model/decoder  model/upsampler-256    finished, averaged weights
model/training/<stage>   state to resume from, log and previews
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch

from unclip.adapter import merge
from unclip.checkpoint import INDEX, Card, Index, load_stage, read_index, save_stage, write_index
from unclip.clip.clip import TOKENIZER, Clip
from unclip.clip.tokenizer import Tokenizer
from unclip.data.embeddings import EmbeddedSource, compute_embeddings
from unclip.data.loader import Loader
from unclip.data.retrieval import JoinedSource, RetrievalSource, is_retrieval
from unclip.data.source import Source, StreamSource
from unclip.data.transforms import RandomCropMultiple, SquareResize, Transform
from unclip.errors import CheckpointError, DataError, TrainingError
from unclip.options import GenerateOptions
from unclip.prior.autoregressive import AutoregressivePrior
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.prior.pca import components_needed
from unclip.runtime import Runtime, choose_runtime
from unclip.training.conditioner import FrozenClip
from unclip.training.config import TrainingConfig
from unclip.training.lora import base_of
from unclip.training.objectives import Objective, own_loss
from unclip.training.preview import preview_of
from unclip.training.state import latest_state
from unclip.training.trainer import TrainingReport, train
from unclip.types import Batch

MEASURED_SAMPLES = 4096
MEASURED_BATCHES = 16
"""At most so many batches, and about so many samples, give the prior's measured tables."""


EMBEDDED = EmbeddedSource | JoinedSource | RetrievalSource
"""Sources whose samples bring their image embedding."""


def folder_of(stage: Any) -> str:
    """The folder of a stage in its model: its name, and for an upsampler the size it draws."""
    name = str(stage.name)
    return f"{name}-{stage.config.high}" if name == "upsampler" else name


def train_into(
    model: Path,
    stage: Any,
    source: Source | StreamSource,
    config: TrainingConfig,
    *,
    clip: Clip | None = None,
    transform: Transform | Literal["auto"] | None = "auto",
    base: Callable[[], Any] | None = None,
    defaults: GenerateOptions | None = None,
    objective: Objective = own_loss,
    workers: int = 0,
    tracker: str | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    device: str | None = None,
) -> TrainingReport:
    """Train ``stage`` on ``source`` and put it into the folder ``model``, or continue to.

    Args:
        model: the model folder; it may hold other stages already.
        stage: as in `train`.
        source: from `open_data`, or your own.
        config: how to train.
        clip: frozen; the prior and the decoder are conditioned on it.
        transform: images to tensors; ``auto`` is what suits the stage, None leaves them out.
        base: loads the stage afresh that an adapter is trained on (see `add_adapter`), to merge
            the two in the end.
        defaults: sampling defaults to write for a new model.
        objective: what is minimised instead of the stage's own loss.
        workers: processes that prepare batches.
        tracker: as in `train`; so are the other arguments.
        max_minutes: see `train`.
        max_steps: see `train`.
        device: see `train`.

    Raises:
        UnclipError: as `train`, `Loader` and `save_stage` do.
    """
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if config.batch % processes:
        raise TrainingError(
            f"a batch of {config.batch} cannot be shared by {processes} processes; set "
            f"training.batch to a multiple of {processes}"
        )
    loader = Loader(
        source,
        config.batch // processes,
        transform_for(stage, clip, source) if transform == "auto" else transform,
        config.seed,
        rank=rank,
        processes=processes,
        workers=workers,
    )
    conditioner = _conditioner(stage, source, clip)
    run = model / "training" / folder_of(stage)
    _measure_before(stage, loader, conditioner, run)
    report = train(
        stage,
        loader,
        config,
        run,
        conditioner=conditioner,
        objective=objective,
        preview=preview_of(
            stage, loader, conditioner, defaults or GenerateOptions(), config.preview_steps
        ),
        tracker=tracker,
        max_minutes=max_minutes,
        max_steps=max_steps,
        device=device,
    )
    if rank == 0:
        finished = _finished(stage, report.folder, base)
        # A stream cannot be entered so far in without reading all before.
        start = 0 if isinstance(source, StreamSource) else config.steps
        _measure_after(finished, loader, conditioner, start, device)
        save_stage(finished, model / folder_of(stage))
        _register(model, folder_of(stage), defaults)
    return report


def _conditioner(stage: Any, source: Source | StreamSource, clip: Clip | None) -> FrozenClip | None:
    if clip is None:
        return None
    if isinstance(source, RetrievalSource):
        _check(source, clip)
    return FrozenClip(clip, stage.needs, stage.config.size if stage.name == "decoder" else None)


def _finished(stage: Any, folder: Path, base: Callable[[], Any] | None) -> Any:
    if not base_of(stage):
        return load_stage(folder)
    if base is None:
        raise TrainingError(f"{folder} is an adapter; say by `base` what to merge it into")
    finished = base()
    merge(finished, folder)
    finished.config = stage.config
    return finished


def embedded(
    source: Source | StreamSource,
    folder: Path,
    clip: Clip,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Source:
    """``source`` with the image embeddings in ``folder``, computed there first where missing.

    Args:
        source: read by index.
        folder: made by this function before, or by clip-retrieval.
        clip: what they are of.
        tell: called with the samples done and the samples in all.

    Raises:
        DataError: the embeddings are of another CLIP or of other data, cannot be made, or are to
            be made by several processes.
    """
    if isinstance(source, StreamSource):
        raise DataError("embeddings need data that lie on a disk, not a stream")
    if is_retrieval(folder):
        kept = RetrievalSource(folder)
        _check(kept, clip)
        return JoinedSource(source, kept)
    transform = SquareResize(size=clip.config.image_tower().size)
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # who would compute which?
        return EmbeddedSource(source, folder, clip, transform)
    steps = compute_embeddings(source, clip, transform, folder)
    while True:
        try:
            tell(*next(steps))
        except StopIteration as stop:
            return stop.value


def _check(embeddings: RetrievalSource, clip: Clip) -> None:
    if not embeddings.check(clip):
        logging.getLogger(__name__).warning(
            "%s: no text embeddings, so nobody can tell whether they are of this CLIP",
            embeddings.folder,
        )


def tokenizer_for(model: Path, captions: Callable[[], Iterable[str]], vocabulary: int) -> Tokenizer:
    """The vocabulary of the CLIP in training in ``model``, or one learned from ``captions``.

    A resumed CLIP must keep its own: other merges would give its embeddings other meanings.
    """
    saved = model / "training" / Clip.name / Clip.name / TOKENIZER
    return (
        Tokenizer.load(saved)
        if saved.exists()
        else Tokenizer.train(captions(), vocabulary=vocabulary)
    )


def transform_for(
    stage: Any, clip: Clip | None = None, source: Source | StreamSource | None = None
) -> Transform | None:
    """How images become what ``stage`` trains on: random squares, whole images, or crops.

    Where CLIP is to embed them they come in its size, and in the decoder's if that is larger. Where
    the source brings embeddings, the prior needs no images: None.
    """
    if stage.name == "upsampler":
        config = stage.config
        return RandomCropMultiple(
            size=config.training_crop,
            image_size=config.high,
            multiple=config.factor,
            candidates=config.crop_candidates,
        )
    if stage.name == "clip":
        return SquareResize(size=stage.config.image.size, crop="random")
    own = stage.config.size if stage.name == "decoder" else 0
    seen = 0
    if clip is not None and not isinstance(source, EMBEDDED):
        seen = clip.config.image_tower().size
    return SquareResize(size=max(seen, own)) if max(seen, own) else None


def _measure_before(stage: Any, loader: Loader, conditioner: FrozenClip | None, run: Path) -> None:
    """Measure the tables of a prior that its training begins with, on training embeddings.

    Of several processes each measures its own share of the data; what the first found is sent
    to the others with its weights.
    """
    if isinstance(stage, DiffusionPrior) and not stage.space.measured:
        embeddings = [batch.image_embedding for batch in _conditioned(loader, conditioner, 0)]
        stage.space.measure(torch.cat([z_i.float().cpu() for z_i in embeddings if z_i is not None]))
    resumed = latest_state(run) is not None  # and brings its codec
    if isinstance(stage, AutoregressivePrior) and not (stage.codec.measured or resumed):
        codec = stage.codec
        codec.fit(_conditioned(loader, conditioner, 0, codec.samples))
        logging.getLogger(__name__).info(
            "tokens: %d of %d components hold %.2f %% of the variance; %d would hold 99 %%",
            len(codec.components),
            len(codec.spectrum),
            100 * (1 - codec.error),
            components_needed(codec.spectrum, 0.01),
        )


def _measure_after(
    stage: Any, loader: Loader, conditioner: FrozenClip | None, start: int, device: str | None
) -> None:
    """Fill in the analytic variance (§4.4), which depends on the finished weights.

    It wants data the prior was not trained on: the batches after the last of the training are
    that, as long as it has seen less than all data once.
    """
    if isinstance(stage, DiffusionPrior) and stage.process.config.variance == "analytic":
        stage.to(_own(device).device).measure_posterior(_conditioned(loader, conditioner, start))


def _conditioned(
    loader: Loader,
    conditioner: Callable[[Batch], Batch] | None,
    start: int,
    samples: int | None = None,
) -> Iterator[Batch]:
    """What the prior reads of ``samples``, or a few thousand, from batch ``start`` on."""
    with closing(loader.batches(start)) as batches:
        seen = 0
        for batch in islice(batches, None if samples else MEASURED_BATCHES):
            yield conditioner(batch) if conditioner else batch
            seen += len(batch)
            if seen >= (samples or MEASURED_SAMPLES):
                return


def _register(model: Path, folder: str, defaults: GenerateOptions | None) -> None:
    """Name a stage that is written now in the index of its model, which names no other absent."""
    if (model / INDEX).exists():
        index = read_index(model)
    else:
        index = Index(defaults=defaults or GenerateOptions(), card=Card(name=model.name))
    write_index(model, index.naming(folder).present(model))


def frozen(clip_folder: Path, device: str | None = None) -> Clip:
    """A trained CLIP, placed for inference."""
    clip = load_stage(clip_folder, _own(device))
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{clip_folder} holds a {clip.name}, not a clip")
    return clip


def _own(device: str | None) -> Runtime:
    """The runtime of this process: of several on one machine each has a GPU of its own."""
    runtime = choose_runtime(device)
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or runtime.device.type != "cuda" or runtime.device.index is not None:
        return runtime
    return replace(runtime, device=torch.device("cuda", int(rank)))
