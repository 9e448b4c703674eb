"""Figure 4: on the way from one picture to another, the nearer end is the one that is drawn."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from codes import CURVE_STEPS, Codes, decode, eight_bit
from measures import curve, percent, said, see
from study import Numbers, Setting, Study, bar, main
from unclip.evaluation.statistics import mean, share
from unclip.images import contact_sheet, to_pil
from unclip.manipulation.spherical import slerp

THETAS = tuple(i / 6 for i in range(7))
NOISES = ("slerp", "fixed")
ENDS = ("to the start", "to the goal")
SHOWN = 4


def measure(setting: Setting) -> Numbers:
    codes = Codes(setting, [question.image for question in setting.questions("B")], CURVE_STEPS)
    setting.expect(len(NOISES) * len(THETAS))
    starts = see(setting, np.stack(codes.images))
    ends = (starts, starts.roll(1, 0))
    result: Numbers = {"thetas": list(THETAS), "bars": []}
    for noise in NOISES:
        points = []
        for theta in THETAS:

            def compute(noise=noise, theta=theta) -> Numbers:
                seen = see(setting, eight_bit(_frame(setting, codes, noise, theta)))
                cosines = [(seen * end).sum(1) for end in ends]
                scores = dict(zip(ENDS, (mean(c).as_json() for c in cosines), strict=True))
                return {**scores, "each": [_rounded(cosine) for cosine in cosines]}

            points.append(setting.point(f"x_T {noise}, θ {theta:.2f}", compute))
        each = torch.tensor([point["each"] for point in points])  # [θ ends n]
        curves = [{name: point[name] for name in ENDS} for point in points]
        result[noise] = {"curve": curves, "crosses once": share(_crosses_once(each)).as_json()}
        result["bars"] += list(_bars(noise, each))
        few = min(SHOWN, len(codes.images))
        frames = [_frame(setting, codes, noise, theta, few) for theta in THETAS]
        cells = [to_pil(frame[row]) for row in range(few) for frame in frames]
        setting.picture(f"x_T-{noise}", contact_sheet(cells, len(THETAS)))
    return result


def _frame(
    setting: Setting, codes: Codes, noise: str, theta: float, count: int | None = None
) -> Tensor:
    """What lies between each picture and the one before it."""
    z = slerp(codes.z, codes.z.roll(1, 0), theta)[:count]
    if noise == "fixed":
        return decode(setting, z, setting.model.defaults.decoder, None, "fixed")
    return decode(setting, z, codes.way, slerp(codes.x_T, codes.x_T.roll(1, 0), theta)[:count])


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _crosses_once(each: Tensor) -> Tensor:
    nearer = (each[:, 0] - each[:, 1]).sign()
    return (nearer.diff(dim=0) != 0).sum(0) == 1


def _bars(noise: str, each: Tensor) -> Iterator[Numbers]:
    """The mean cosine to the start falls with every step, and that to the goal rises."""
    steps = each.diff(dim=0)
    for place, name, sign in ((0, "start, smallest fall", -1), (1, "goal, smallest rise", 1)):
        changes = [mean(sign * step).as_json() for step in steps[:, place]]
        smallest = min(changes, key=lambda change: change["value"])
        yield bar(f"x_T {noise}: cosine to the {name} from θ to θ", smallest, least=0)
    for place, name in ((0, "at the start, lead of the start"), (-1, "at the goal, of the goal")):
        lead = (each[place, 0] - each[place, 1]) * (1 if place == 0 else -1)
        yield bar(f"x_T {noise}: cosine {name}", mean(lead).as_json(), least=0)


def plot(numbers: Numbers, figure) -> None:
    for axes, noise in zip(figure.subplots(1, 2, sharey=True), NOISES, strict=True):
        for name in ENDS:
            curve(axes, numbers["thetas"], numbers[noise]["curve"], name, label=name)
        axes.set(xlabel="θ", ylabel="cosine, by the evaluator", title=f"x_T {noise}")
    axes.legend()


def ours(numbers: Numbers) -> dict[str, str]:
    words = []
    for noise in NOISES:
        points = numbers[noise]["curve"]
        middle = points[len(points) // 2]
        words.append(
            f"x_T {noise}: cosine to the start {said(points[0][ENDS[0]])} → "
            f"{said(middle[ENDS[0]])} → {said(points[-1][ENDS[0]])}, "
            f"{percent(numbers[noise]['crosses once'])} of the ways cross over once"
        )
    return {"Fig. 4": "; ".join(words)}


STUDY = Study("interpolations", "Fig. 4", "Do interpolations cross over?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
