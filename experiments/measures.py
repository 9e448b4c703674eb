"""What the studies of generation share: pictures under some condition, and what they score.

Conditions of the decoder are those of the paper: a prior's z_i, z_t in its place, the caption
alone (the closest thing to GLIDE that one trained decoder offers), or CLIP of a real image.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from study import Numbers, Question, Setting
from unclip.evaluation.distances import fid, kid, mean_pairwise_distance, precision_recall
from unclip.evaluation.drawing import pixels, stacked
from unclip.evaluation.retrieval import ranks, retrieved
from unclip.evaluation.statistics import Score, mean, share
from unclip.options import GenerateOptions
from unclip.randomness import Randomness, derive_seed
from unclip.types import finish

BATCH = 32
AMONG = 100
"""Candidates that the evaluator finds the right one among."""

Condition = Literal["prior", "z_t", "caption", "image", "image and caption"]


def options_of(setting: Setting, assignments: Mapping[str, object]) -> GenerateOptions:
    """The model's defaults at 64 px with some options changed, such as ``decoder.guidance``."""
    texts = {name: str(value) for name, value in assignments.items()}
    return setting.model.defaults.override({"size": "64", **texts})


def pictures(
    setting: Setting,
    questions: Sequence[Question],
    assignments: Mapping[str, object] | None = None,
    condition: Condition = "prior",
    take: int = 0,
) -> np.ndarray:
    """One picture of 64 px for each question: uint8 [n 64 64 3].

    The same question and take start from the same noise under every condition and option.
    """
    options = options_of(setting, assignments or {})
    parts = []
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        seeds = [derive_seed(setting.seed, take, question.key) for question in part]
        parts.append(_draw(setting, part, options, condition, Randomness(seeds)))
    return np.concatenate(parts)


def _draw(
    setting: Setting,
    questions: Sequence[Question],
    options: GenerateOptions,
    condition: Condition,
    randomness: Randomness,
) -> np.ndarray:
    model = setting.model
    text = model.encode_text([question.caption for question in questions])
    z: Tensor | None = None
    if condition == "prior":
        z = finish(model.embed(text, options, randomness))
    elif condition == "z_t":
        z = text.embedding
    elif condition != "caption":
        z = model.encode_image(stacked([question.image for question in questions]))
    caption = None if condition == "image" else text
    streams = randomness.split("decoder")
    images = finish(
        model.decoder.sample(lambda stage: stage.sample(z, caption, options.decoder, streams))
    )
    return pixels(images)


def see(setting: Setting, images: np.ndarray) -> Tensor:
    """Embeddings by the evaluator, of unit length."""
    parts = [
        setting.evaluator.encode_image(stacked(images[i : i + BATCH]))
        for i in range(0, len(images), BATCH)
    ]
    return torch.cat(parts).cpu()


def read(setting: Setting, captions: Sequence[str]) -> Tensor:
    """Embeddings of captions by the evaluator, of unit length."""
    return setting.evaluator.encode_text(list(captions), warn=False).embedding.cpu()


def found_among(queries: Tensor, candidates: Tensor) -> Bool[Tensor, " n"]:
    """Whether each query's own candidate is the nearest of a hundred, or of all if fewer."""
    hits = []
    for start in range(0, len(queries), AMONG):
        end = min(start + AMONG, len(queries))
        rows = slice(max(0, end - AMONG), end)
        hits.append(retrieved(queries[rows], candidates[rows])[start - end :])
    return torch.cat(hits)


def quality(setting: Setting, questions: Sequence[Question], drawn: np.ndarray) -> Numbers:
    """Fidelity, diversity and fit to the captions, all by the evaluator."""
    real, ours = see(setting, np.stack([q.image for q in questions])), see(setting, drawn)
    text = read(setting, [question.caption for question in questions])
    scale = real.shape[1] ** 0.5
    precision, recall = precision_recall(real, ours)
    return numbers(
        fid=fid(scale * real, scale * ours),
        kid=kid(scale * real, scale * ours),
        precision=precision,
        recall=recall,
        cosine=mean((ours * text).sum(dim=1)),
        retrieved=share(ranks(ours, text) < 10),
        retrieved_real=share(ranks(real, text) < 10),
    )


def spread_within(setting: Setting, takes: Sequence[np.ndarray]) -> Score:
    """Mean distance (1 − cosine) between pictures of one caption, over captions."""
    seen = torch.stack([see(setting, take) for take in takes], dim=1)
    return mean(torch.tensor([mean_pairwise_distance(own) for own in seen]))


def numbers(**scores: Score) -> Numbers:
    """Scores as JSON values."""
    return {name: score.as_json() for name, score in scores.items()}


def said(score: Numbers, digits: int = 2) -> str:
    """A figure with its standard error, for people."""
    value, error = score["value"], score["standard_error"]
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def percent(score: Numbers) -> str:
    """A share with its standard error, for people."""
    whole = {
        name: None if score[name] is None else 100 * score[name]
        for name in ("value", "standard_error")
    }
    return f"{said(whole, 1)} %"


def curve(axes, xs: Sequence[float], points: Sequence[Numbers], name: str, **style: object) -> None:
    """Plot one figure of all points with its standard errors."""
    values = [point[name]["value"] for point in points]
    errors = [point[name]["standard_error"] for point in points]
    axes.errorbar(xs, values, errors, marker="o", capsize=2, **style)
