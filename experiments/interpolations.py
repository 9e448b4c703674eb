"""Figure 4: on the way from one picture to another, the nearer end is the one that is drawn."""

import numpy as np
import torch

from codes import calibrated, decode, eight_bit, embed, invert
from measures import see
from study import Numbers, Setting, Study, main
from unclip.evaluation.statistics import mean, share
from unclip.images import contact_sheet, to_pil
from unclip.manipulation.spherical import slerp

THETAS = tuple(i / 6 for i in range(7))
SHOWN = 6


def measure(setting: Setting) -> Numbers:
    images = [question.image for question in setting.questions("B")]
    ends = see(setting, np.stack(images))
    z = embed(setting, images)
    way = calibrated(setting, images, z)
    x_T = invert(setting, images, z, way)
    other_z, other_x, other = z.roll(1, 0), x_T.roll(1, 0), ends.roll(1, 0)
    result: Numbers = {"thetas": list(THETAS)}
    for noise in ("slerp", "fixed"):
        frames = [
            decode(
                setting,
                slerp(z, other_z, theta),
                way if noise == "slerp" else setting.model.defaults.decoder,
                slerp(x_T, other_x, theta) if noise == "slerp" else None,
                "fixed",
            )
            for theta in THETAS
        ]
        seen = [see(setting, eight_bit(frame)) for frame in frames]
        lead = torch.stack([((s * ends) - (s * other)).sum(1) for s in seen])  # [θ n]
        result[noise] = {
            "to the start": [mean((s * ends).sum(1)).as_json() for s in seen],
            "to the goal": [mean((s * other).sum(1)).as_json() for s in seen],
            "crosses once": share((lead.sign().diff(dim=0) != 0).sum(0) == 1).as_json(),
            "means are monotone": bool((lead.mean(1).diff() < 0).all()),
        }
        cells = [to_pil(frame[row]) for row in range(min(SHOWN, len(z))) for frame in frames]
        setting.picture(f"x_T-{noise}", contact_sheet(cells, len(THETAS)))
    return result


def plot(numbers: Numbers, figure) -> None:
    for axes, noise in zip(figure.subplots(1, 2, sharey=True), ("slerp", "fixed"), strict=True):
        for name in ("to the start", "to the goal"):
            points = numbers[noise][name]
            values = [point["value"] for point in points]
            errors = [point["standard_error"] for point in points]
            axes.errorbar(numbers["thetas"], values, errors, marker="o", capsize=2, label=name)
        axes.set(xlabel="θ", ylabel="cosine, by the evaluator", title=f"x_T {noise}")
    axes.legend()


STUDY = Study("interpolations", "Fig. 4", "Do interpolations cross over?", measure, plot, count=100)

if __name__ == "__main__":
    main(STUDY)
