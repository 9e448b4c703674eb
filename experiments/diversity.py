"""Table 1 and Figure 10, by proxies: diversity against fidelity of unCLIP and the caption alone.

The paper's raters prefer unCLIP's diversity at about equal photorealism. Here: distances between
four pictures of one caption, against precision, over the guidance of the decoder.
"""

from measures import numbers, pictures, quality, spread_within
from study import Numbers, Setting, Study, main

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
TAKES = 4
CONDITIONS = {"prior": "unCLIP", "caption": "caption alone"}


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B", max(8, setting.count // TAKES))
    curves: Numbers = {}
    for condition in CONDITIONS:
        curves[condition] = []
        for scale in SCALES:

            def compute(condition=condition, scale=scale) -> Numbers:
                changed = {"decoder.guidance": scale}
                takes = [pictures(setting, questions, changed, condition, t) for t in range(TAKES)]
                spread = numbers(spread=spread_within(setting, takes))
                return {**spread, **quality(setting, questions, takes[0])}

            point = setting.point(f"{condition}, guidance {scale}", compute)
            curves[condition].append({"scale": scale, **point})
    return {"curves": curves}


def plot(numbers: Numbers, figure) -> None:
    for axes, name in zip(figure.subplots(1, 2), ("precision", "retrieved"), strict=True):
        for condition, points in numbers["curves"].items():
            axes.errorbar(
                [point["spread"]["value"] for point in points],
                [point[name]["value"] for point in points],
                [point[name]["standard_error"] for point in points],
                [point["spread"]["standard_error"] for point in points],
                marker="o",
                label=CONDITIONS[condition],
            )
            for point in points:
                at = (point["spread"]["value"], point[name]["value"])
                axes.annotate(f"{point['scale']:g}", at)
        axes.set(xlabel="distance within a caption", ylabel=name)
    axes.legend(title="number: guidance")


STUDY = Study(
    "diversity", "Table 1, Fig. 10", "Is unCLIP more diverse at equal fidelity?", measure, plot
)

if __name__ == "__main__":
    main(STUDY)
