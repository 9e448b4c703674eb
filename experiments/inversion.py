"""The two halves of the code (§3): does x_T bring the picture back, and is it noise?

Sixty-four pictures: figures of single pictures, of small spread, not rates; and the steps double.
"""

from itertools import pairwise

import torch

from codes import Codes, decode, eight_bit, invert, neighbours, psnr
from measures import said
from study import Numbers, Setting, Study, bar, main
from unclip.evaluation.drawing import side_by_side, stacked
from unclip.evaluation.statistics import mean
from unclip.images import contact_sheet

STEPS = (31, 62, 125, 250, 500)
JUDGED = 250
"""Steps of the paper's walk, and of the bars."""
EXACT_COST = 10
"""Evaluations that a step solved by iteration takes, about."""
SHOWN = 8


def measure(setting: Setting) -> Numbers:
    codes = Codes(setting, [question.image for question in setting.questions("C")])
    real, z = stacked(codes.images), codes.z
    setting.expect(sum(STEPS) + EXACT_COST * codes.way.steps)
    curve = []
    for steps in STEPS:

        def compute(steps=steps) -> Numbers:
            options = codes.way.updated({"steps": steps})
            x_T = invert(setting, codes.images, z, options)
            back = decode(setting, z, options, x_T)
            error = (back - real).square().flatten(1).mean(1).sqrt()
            found = {**_of(x_T), "psnr": mean(psnr(back, real)).as_json()}
            return {**found, "rms": mean(error).as_json(), "rms of each": rounded(error)}

        curve.append({"steps": steps, **setting.point(f"{steps} steps", compute, steps)})

    def exact() -> Numbers:
        x_T = invert(setting, codes.images, z, codes.way, exact=True)
        back = decode(setting, z, codes.way, x_T)
        swapped = decode(setting, z.roll(1, 0), codes.way, x_T)
        return {
            **_of(x_T),
            "psnr": mean(psnr(back, real)).as_json(),
            "psnr with another z_i": mean(psnr(swapped, back)).as_json(),
        }

    result = {
        "curve": curve,
        "exact": setting.point("exact", exact, EXACT_COST * codes.way.steps),
        "x0_error": codes.way.x0_error,
        "split": "C",
        "noise": _of(torch.randn(real.shape, generator=torch.Generator().manual_seed(0))),
    }
    _show(setting, codes)
    return {**result, "bars": _bars(result)}


def _of(x_T: torch.Tensor) -> Numbers:
    """How far x_T is from noise."""
    return {
        "deviation": mean(x_T.flatten(1).std(1)).as_json(),
        "neighbours": mean(neighbours(x_T)).as_json(),
    }


def rounded(values: torch.Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def _bars(found: Numbers) -> list[Numbers]:
    walks = [point for point in found["curve"] if point["steps"] <= JUDGED]
    fewer = [torch.tensor(point["rms of each"]) for point in found["curve"]]
    gains = [mean(a - b).as_json() for a, b in pairwise(fewer)]
    named = {f"{walks[-1]['steps']} steps": walks[-1], "exact": found["exact"]}
    bars = [
        bar(f"round trip in dB, {walks[-1]['steps']} steps", walks[-1]["psnr"], least=30),
        bar("round trip in dB, exact", found["exact"]["psnr"], least=45),
        bar(
            "round trip against the same x_T with another z_i in dB",
            found["exact"]["psnr with another z_i"],
            most=20,
        ),
        bar(
            "smallest fall of the error as steps double",
            min(gains, key=lambda gain: gain["value"]),
            least=0,
        ),
    ]
    for name, point in named.items():
        bars += [
            bar(f"standard deviation of x_T, {name}", point["deviation"], 0.95, 1.05),
            bar(f"correlation of neighbours in x_T, {name}", point["neighbours"], -0.05, 0.05),
        ]
    return bars


def _show(setting: Setting, codes: Codes) -> None:
    few = codes.images[:SHOWN]
    z, way = codes.z[:SHOWN], codes.way
    x_T = invert(setting, few, z, way)
    rows = [
        few,
        eight_bit(decode(setting, z, way, x_T)),
        eight_bit(x_T / 3),
        eight_bit(decode(setting, z.roll(1, 0), way, x_T)),
    ]
    setting.picture("round-trips", contact_sheet(side_by_side(rows, SHOWN), 2))


def plot(numbers: Numbers, figure) -> None:
    steps = [point["steps"] for point in numbers["curve"]]
    left, right = figure.subplots(1, 2)
    for axes, name, label in (
        (left, "rms", "error of the round trip (of 2)"),
        (right, "deviation", "standard deviation of x_T"),
    ):
        values = [point[name]["value"] for point in numbers["curve"]]
        errors = [point[name]["standard_error"] for point in numbers["curve"]]
        axes.errorbar(steps, values, errors, marker="o", capsize=2)
        axes.set(xscale="log", xlabel="DDIM steps", ylabel=label)
        axes.set_xticks(steps, [str(count) for count in steps])
        axes.set_xticks([], minor=True)
    left.set(yscale="log")
    right.axhline(1, color="grey", linewidth=0.8)


def ours(numbers: Numbers) -> dict[str, str]:
    words = [f"{point['steps']} steps {said(point['psnr'], 1)}" for point in numbers["curve"]]
    exact = numbers["exact"]
    return {
        "§3": f"round trip in dB: {', '.join(words)}, exact {said(exact['psnr'], 1)}; x_T, exact: "
        f"deviation {said(exact['deviation'])}, neighbours {said(exact['neighbours'])}"
    }


STUDY = Study("inversion", "§3", "Does DDIM inversion come back?", measure, plot, ours, count=64)

if __name__ == "__main__":
    main(STUDY)
