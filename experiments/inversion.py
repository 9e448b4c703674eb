"""The two halves of the code (§2): does x_T bring the picture back, and is it noise?"""

import torch

from codes import calibrated, decode, eight_bit, embed, invert, neighbours, psnr, walk
from study import Numbers, Setting, Study, main
from unclip.evaluation.drawing import side_by_side, stacked
from unclip.evaluation.statistics import mean
from unclip.images import contact_sheet

STEPS = (31, 62, 125, 250, 500)
SHOWN = 8


def measure(setting: Setting) -> Numbers:
    images = [question.image for question in setting.questions("C")]
    real = stacked(images)
    z = embed(setting, images)
    way = calibrated(setting, images, z)
    curve = []
    for steps in STEPS:

        def compute(steps=steps) -> Numbers:
            options = way.updated({"steps": steps})
            x_T = invert(setting, images, z, options)
            back = decode(setting, z, options, x_T)
            return {
                "psnr": mean(psnr(back, real)).as_json(),
                "rms": mean((back - real).square().flatten(1).mean(1).sqrt()).as_json(),
                "deviation": mean(x_T.flatten(1).std(1)).as_json(),
                "neighbours": mean(neighbours(x_T)).as_json(),
            }

        curve.append({"steps": steps, **setting.point(f"{steps} steps", compute)})

    def exact() -> Numbers:
        x_T = invert(setting, images, z, way, exact=True)
        back = decode(setting, z, way, x_T)
        swapped = decode(setting, z.roll(1, 0), way, x_T)
        return {
            "psnr": mean(psnr(back, real)).as_json(),
            "deviation": mean(x_T.flatten(1).std(1)).as_json(),
            "neighbours": mean(neighbours(x_T)).as_json(),
            "psnr with another z_i": mean(psnr(swapped, real)).as_json(),
        }

    def trusting() -> Numbers:
        x_T = invert(setting, images, z, walk())
        return {
            "psnr": mean(psnr(decode(setting, z, walk(), x_T), real)).as_json(),
            "deviation": mean(x_T.flatten(1).std(1)).as_json(),
            "neighbours": mean(neighbours(x_T)).as_json(),
        }

    found = setting.point("exact", exact)
    believed = setting.point("network believed", trusting)
    few = images[:SHOWN]
    x_T = invert(setting, few, z[:SHOWN], way)
    rows = [
        few,
        eight_bit(decode(setting, z[:SHOWN], way, x_T)),
        eight_bit(x_T / 3),
        eight_bit(decode(setting, z[:SHOWN].roll(1, 0), way, x_T)),
    ]
    setting.picture("round-trips", contact_sheet(side_by_side(rows, SHOWN), 2))
    return {
        "curve": curve,
        "exact": found,
        "network believed": believed,
        "x0_error": way.x0_error,
        "split": "C",
        "noise": _noise(real),
    }


def _noise(like: torch.Tensor) -> Numbers:
    """What the figures are for true noise of this size."""
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(0))
    return {
        "deviation": mean(noise.flatten(1).std(1)).as_json(),
        "neighbours": mean(neighbours(noise)).as_json(),
    }


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
    left.set(yscale="log")
    right.axhline(1, color="grey", linewidth=0.8)


STUDY = Study("inversion", "§2", "Does DDIM inversion come back?", measure, plot, count=64)

if __name__ == "__main__":
    main(STUDY)
