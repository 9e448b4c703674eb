"""The dot-product token of the autoregressive prior, drawn above a percentile (§2.2).

The paper swept 50, 70, 85 and 95: drawing from the upper half won everywhere. Needs a model whose
prior is autoregressive: ``--model``.
"""

from measures import curve, percent, pictures, quality
from study import Numbers, Setting, Study, main
from unclip.errors import OptionError

PERCENTILES = (0.0, 0.5, 0.7, 0.85, 0.95)


def measure(setting: Setting) -> Numbers:
    with setting.model.prior.use() as prior:
        if not hasattr(prior, "codec"):
            raise OptionError("this model's prior draws no dot token; give one with --model")
    questions = setting.questions("B")
    setting.expect(len(PERCENTILES))
    points = []
    for percentile in PERCENTILES:

        def compute(percentile=percentile) -> Numbers:
            drawn = pictures(setting, questions, {"prior.dot_percentile": percentile})
            return quality(setting, questions, drawn)

        found = setting.point(f"percentile {percentile}", compute)
        points.append({"percentile": percentile, **found})
    return {"points": points}


def plot(numbers: Numbers, figure) -> None:
    points = numbers["points"]
    xs = [100 * point["percentile"] for point in points]
    wanted = {"retrieved": "caption in the top 10 ↑", "kid": "KID ↓", "recall": "recall ↑"}
    for axes, (name, label) in zip(figure.subplots(1, 3), wanted.items(), strict=True):
        curve(axes, xs, points, name)
        axes.set(xlabel="dot above percentile", ylabel=label)


def ours(numbers: Numbers) -> dict[str, str]:
    words = [
        f"{100 * point['percentile']:g}: {percent(point['retrieved'])}"
        for point in numbers["points"]
    ]
    return {"§2.2": f"caption found, by percentile: {', '.join(words)}"}


STUDY = Study("dot-percentile", "§2.2", "From where to draw the dot token?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
