"""Guidance of the prior (§5, used for the tables, not for the aesthetic probe): fit and spread.

Cosines and variance are of P(z_i|y), one embedding a caption; pictures are drawn as by default,
from the best of several.
"""

import torch

from measures import curve, numbers, options_of, percent, pictures, quality, said
from study import Numbers, Setting, Study, main
from unclip.evaluation.drawing import stacked
from unclip.evaluation.embeddings import prior_scores
from unclip.randomness import Randomness, derive_seed
from unclip.types import finish

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
KEPT = {
    "cosine to the true z_i": "true",
    "cosine to z_t": "text",
    "cosine of the true z_i to z_t": "text_real",
    "variance, as a share of the data's": "variance",
}


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B")
    setting.expect(len(SCALES))
    points = []
    for scale in SCALES:
        changed = {"prior.guidance": scale}

        def compute(changed=changed) -> Numbers:
            options = options_of(setting, {**changed, "candidates": 1})
            text = setting.model.encode_text([question.caption for question in questions])
            randomness = Randomness([derive_seed(setting.seed, 0, q.key) for q in questions])
            drawn = finish(setting.model.embed(text, options, randomness)).float().cpu()
            real = setting.model.encode_image(stacked([question.image for question in questions]))
            unit = torch.nn.functional.normalize
            scores = prior_scores(unit(drawn), unit(real.cpu()), unit(text.embedding.cpu()))
            kept = numbers(**{short: scores[name] for name, short in KEPT.items()})
            return {**kept, **quality(setting, questions, pictures(setting, questions, changed))}

        points.append({"scale": scale, **setting.point(f"prior guidance {scale}", compute)})
    return {"points": points}


def plot(numbers: Numbers, figure) -> None:
    points = numbers["points"]
    xs = [point["scale"] for point in points]
    wanted = {
        "text": "cosine to z_t",
        "variance": "variance / the data's",
        "retrieved": "caption in the top 10 ↑",
        "kid": "KID ↓",
    }
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, wanted.items(), strict=True):
        curve(axes, xs, points, name)
        if name == "text":
            axes.axhline(points[0]["text_real"]["value"], ls="--", c="gray", label="the data's own")
            axes.legend()
        axes.set(xlabel="guidance scale of the prior", ylabel=label)


def ours(numbers: Numbers) -> dict[str, str]:
    words = [
        f"{point['scale']:g}: caption found {percent(point['retrieved'])}, variance "
        f"{said(point['variance'])} of the data's"
        for point in (numbers["points"][0], numbers["points"][-1])
    ]
    return {"§5": "guidance " + "; ".join(words)}


STUDY = Study("prior-guidance", "§5", "What does guiding the prior do?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
