"""Table 1 and Figure 10, by proxies: diversity against fidelity of unCLIP and the caption alone.

The paper's raters prefer unCLIP's diversity at about equal photorealism. Here: distances between
four pictures of one caption, against precision, over the guidance of the decoder; the points are
those of `decoder_guidance`.
"""

import decoder_guidance
from decoder_guidance import CONDITIONS
from measures import percent, said
from study import Numbers, Setting, Study, main


def measure(setting: Setting) -> Numbers:
    measured = setting.beside(decoder_guidance.STUDY)
    return {"curves": decoder_guidance.curves(measured, setting.questions("B"))}


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
                axes.annotate(f"{point['scale']:g}", at, (3, 3), textcoords="offset points")
        axes.set(xlabel="distance within a caption", ylabel=name)
    axes.legend(title="number: guidance")


def ours(numbers: Numbers) -> dict[str, str]:
    words = []
    for condition, points in numbers["curves"].items():
        best = max(points, key=lambda point: point["precision"]["value"] or 0)
        words.append(
            f"{CONDITIONS[condition]} {said(best['spread'])} at its best precision "
            f"{percent(best['precision'])} (guidance {best['scale']:g})"
        )
    return {"Fig. 10": f"distance within a caption: {'; '.join(words)}"}


STUDY = Study(
    "diversity", "Table 1, Fig. 10", "Is unCLIP more diverse at equal fidelity?",
    measure, plot, ours,
)  # fmt: skip

if __name__ == "__main__":
    main(STUDY)
