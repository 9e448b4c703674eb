"""One evaluation of a model on captioned images: distances, retrieval, prior, colours (§6).

Draws a picture for each caption and compares it with the caption's own image, in equal numbers.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unclip.clip.clip import Clip
from unclip.data.source import BadSample, Sample, Source, StreamSource
from unclip.data.transforms import SquareResize
from unclip.errors import DataError
from unclip.evaluation.colours import asked_colours, coloured
from unclip.evaluation.distances import cmmd, fid, kid, precision_recall
from unclip.evaluation.drawing import draw_into, side_by_side
from unclip.evaluation.embeddings import effective_rank, prior_scores, spectrum
from unclip.evaluation.features import ClipFeatures, Features, embed
from unclip.evaluation.report import Report, Row
from unclip.evaluation.retrieval import ranks
from unclip.evaluation.statistics import corrected, mean, share
from unclip.images import contact_sheet, decode, to_tensor
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness, derive_seed
from unclip.types import Step

SHOWN = 24
ENOUGH_COLOURS = 500
"""Captions with two colours from which on the share of right ones means something."""
_BATCH = 32


@dataclass(frozen=True)
class Judges:
    """Who judges: at least one of the two."""

    evaluator: Clip | None = None
    """Needed for retrieval, CLIP score and CMMD."""
    features: Sequence[Features] = ()
    """Spaces for distances beside the evaluator's."""


def choose_samples(
    source: Source | StreamSource, count: int, seed: int = 0
) -> tuple[list[Sample], int]:
    """Draw ``count`` samples with captions of a dataset, or all there are.

    Returns:
        The samples, and how many had to be passed over.

    Raises:
        DataError: not two are usable.
    """
    chosen: list[Sample] = []
    skipped = 0
    for sample in _all(source, seed):
        if isinstance(sample, BadSample) or not sample.captions:
            skipped += 1
            continue
        chosen.append(sample)
        if len(chosen) == count:
            break
    if len(chosen) < 2:
        raise DataError(f"an evaluation needs two captioned images at least, not {len(chosen)}")
    return chosen, skipped


def evaluate(
    model: UnCLIP,
    samples: Sequence[Sample],
    judges: Judges,
    options: GenerateOptions,
    folder: Path,
    seed: int = 0,
) -> Generator[Step, None, Report]:
    """Draw a picture for each sample's first caption and compare.

    Args:
        model: what is judged.
        samples: captioned images it was not trained on.
        judges: by what.
        options: complete ones, see `GenerateOptions.over`.
        folder: where pictures are kept; those that are there are not drawn again.
        seed: of all pictures.

    Raises:
        DataError: an image cannot be read.
    """
    captions = [sample.captions[0] for sample in samples]
    keys = [sample.key for sample in samples]
    files = yield from draw_into(folder / "pictures", model, captions, keys, options, seed)
    size = options.size or model.sizes[-1]
    fit = SquareResize(size=size)

    def real() -> Iterator[Tensor]:
        return (fit(sample.image(), 0, sample.key) for sample in samples)

    def drawn() -> Iterator[Tensor]:
        return (to_tensor(decode(file)) for file in files)

    report = Report(f"{model.name} on {len(samples)} captions", {})
    spaces = list(judges.features)
    if judges.evaluator is not None:
        spaces.insert(0, ClipFeatures(judges.evaluator))
    for space in spaces:
        both = embed(space, real(), _BATCH), embed(space, drawn(), _BATCH)
        report.rows += distance_rows(space.name, *both)
        if isinstance(space, ClipFeatures):
            report.rows += _caption_rows(space.clip, captions, *both)
    report.rows += yield from _prior(model, captions, keys, real(), options, seed, report)
    report.rows += colour_rows(captions, lambda i: np.asarray(decode(files[i])))
    first = [_levels(image) for image, _ in zip(real(), range(SHOWN), strict=False)]
    second = [np.asarray(decode(file)) for file in files[:SHOWN]]
    cells = [_limited(cell) for cell in side_by_side((first, second), SHOWN)]
    report.sheets["real and drawn"] = contact_sheet(cells, 4, captions[: len(cells)])
    return report


def distance_rows(space: str, real: Float[Tensor, "n k"], drawn: Float[Tensor, "n k"]) -> list[Row]:
    """FID, KID, precision and recall; the KID of two halves of the real set is its floor."""
    about = f"distances, {space}"
    half = len(real) // 2
    precision, recall = precision_recall(real, drawn)
    rows = [
        Row(about, "drawn", "FID", fid(real, drawn), note="biased upward; compare equal n only"),
        Row(about, "drawn", "KID", kid(real, drawn)),
        Row(about, "drawn", "precision (k = 3)", precision),
        Row(about, "drawn", "recall (k = 3)", recall),
    ]
    if half > 1:
        floor = kid(real[:half], real[half : 2 * half])
        rows.append(Row(about, "real, two halves", "KID", floor))
    return rows


def retrieval_rows(
    about: str, kinds: dict[str, Float[Tensor, "n d"]], text: Float[Tensor, "n d"]
) -> list[Row]:
    """R@1, R@5 and R@10 of the captions by pictures, and corrected for chance.

    Args:
        about: subject of the rows.
        kinds: picture embeddings of unit length by kind; ``real`` comes first.
        text: embeddings of the captions, all different.
    """
    n = len(text)
    places = {kind: ranks(images, text) for kind, images in kinds.items()}
    rows = []
    for kind, place in places.items():
        rows += [
            Row(about, kind, f"R@{k} of {n}", share(place < k), note=f"chance {k / n:.3f}")
            for k in (1, 5, 10)
            if k < n
        ]
    for kind in list(places)[1:]:
        rows += [
            Row(
                about,
                kind,
                f"R@{k} of {n}, chance-corrected share of real",
                corrected(places[kind] < k, places["real"] < k, k / n),
            )
            for k in (1, 10)
            if k < n
        ]
    return rows


def colour_rows(captions: Sequence[str], picture: Callable[[int], np.ndarray]) -> list[Row]:
    """Colour binding by pixels, on captions such as ``a red anchor icon on a teal background``.

    Args:
        captions: of all pictures; most name no colours.
        picture: opens the picture of a caption by its number.
    """
    asked = [(i, pair) for i, words in enumerate(captions) if (pair := asked_colours(words))]
    if not asked:
        return []
    pairs = [pair for _, pair in asked]
    right = coloured((picture(i) for i, _ in asked), pairs)
    swapped = coloured((picture(i) for i, _ in asked), [pair[::-1] for pair in pairs])
    note = "" if len(asked) >= ENOUGH_COLOURS else f"fewer than {ENOUGH_COLOURS} such captions"
    about = "colours, by pixels"
    return [
        Row(about, "drawn", "glyph and background", share(right.all(dim=1)), note=note),
        Row(about, "drawn", "glyph", share(right[:, 0])),
        Row(about, "drawn", "background", share(right[:, 1])),
        Row(about, "drawn", "the two swapped", share(swapped.all(dim=1))),
    ]


def _caption_rows(clip: Clip, captions: Sequence[str], real: Tensor, drawn: Tensor) -> list[Row]:
    text = clip.encode_text(captions, warn=False).embedding.cpu()
    units = {"real": real, "drawn": drawn}
    units = {kind: torch.nn.functional.normalize(rows, dim=1) for kind, rows in units.items()}
    rows = [
        Row("captions, evaluator", kind, "CLIP score (cosine)", mean((images * text).sum(dim=1)))
        for kind, images in units.items()
    ]
    rows.append(Row("distances, evaluator", "drawn", "CMMD", cmmd(real, drawn)))
    seen: dict[str, int] = {}
    for i, words in enumerate(captions):
        seen.setdefault(words, i)  # of equal captions no retrieval could be right
    index = torch.tensor(list(seen.values()))
    kinds = {kind: images[index] for kind, images in units.items()}
    return rows + retrieval_rows("captions, evaluator", kinds, text[index])


def _prior(
    model: UnCLIP,
    captions: Sequence[str],
    keys: Sequence[str],
    real: Iterator[Tensor],
    options: GenerateOptions,
    seed: int,
    report: Report,
) -> Generator[Step, None, list[Row]]:
    """Embeddings of the model's own prior against those of the real images, if it embeds any."""
    with model.clip.use() as clip:
        if clip.config.image is None:
            return []
    parts: dict[str, list[Tensor]] = {"drawn": [], "real": [], "text": []}
    for start in range(0, len(captions), _BATCH):
        stop = min(start + _BATCH, len(captions))
        randomness = Randomness([derive_seed(seed, key) for key in keys[start:stop]])
        text = model.encode_text(captions[start:stop])
        parts["drawn"].append((yield from model.embed(text, options, randomness)).cpu())
        images = torch.stack([next(real) for _ in range(start, stop)])
        parts["real"].append(model.encode_image(images).cpu())
        parts["text"].append(text.embedding.cpu())
    z = {name: torch.nn.functional.normalize(torch.cat(p), dim=1) for name, p in parts.items()}
    shares = {name: spectrum(z[name]) for name in ("real", "drawn")}
    report.facts["effective rank"] = {
        name: round(effective_rank(values), 1) for name, values in shares.items()
    }

    def plot(figure: Any) -> None:
        axes = figure.subplots()
        for name, values in shares.items():
            axes.semilogy(range(1, len(values) + 1), values.clamp(min=1e-8), label=name)
        axes.set(xlabel="principal direction", ylabel="share of the variance")
        axes.legend(title="embeddings")

    report.plots["spectrum of image embeddings, real and drawn by the prior"] = plot
    return [
        Row("prior, in the model's own CLIP", "embeddings", name, score)
        for name, score in prior_scores(**z).items()
    ]


def _all(source: Source | StreamSource, seed: int) -> Iterator[Sample | BadSample]:
    if isinstance(source, StreamSource):
        for item in source.stream(seed):
            if item.epoch > 0:
                return
            yield item.sample
        return
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    for index in order.tolist():
        try:
            yield source.sample(index)
        except BadSample as bad:
            yield bad


def _levels(image: Tensor) -> np.ndarray:
    """The picture as 8-bit levels; it came from such, so nothing is lost."""
    return ((image.movedim(0, -1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def _limited(cell: Image.Image, most: int = 512) -> Image.Image:
    if cell.width <= most:
        return cell
    return cell.resize((most, round(cell.height * most / cell.width)), Image.Resampling.BOX)
