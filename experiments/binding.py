"""Figures 14 and 15: which colour belongs to which thing.

The paper: unCLIP confuses "a red cube on top of a blue cube" more than GLIDE does, since z_i does
not bind attributes; even decode(CLIP(x)) swaps them. Colours are read from the pixels.
"""

import numpy as np

from measures import Condition, percent, pictures
from study import Numbers, Setting, Study, main
from unclip.evaluation.colours import coloured
from unclip.evaluation.drawing import side_by_side
from unclip.evaluation.statistics import share
from unclip.images import contact_sheet

CONDITIONS: dict[Condition, str] = {
    "prior": "unCLIP",
    "caption": "caption alone",
    "image": "CLIP of the picture, no caption",
    "image and caption": "CLIP of the picture, and caption",
}

SHOWN = 10


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("D")
    asked = [question.colours for question in questions]
    result: Numbers = {}
    setting.expect(len(CONDITIONS))
    shown = [np.stack([question.image for question in questions[:SHOWN]])]
    for condition in CONDITIONS:

        def compute(condition=condition) -> Numbers:
            return _scores(pictures(setting, questions, condition=condition), asked)

        result[condition] = setting.point(condition, compute)
        shown.append(pictures(setting, questions[:SHOWN], condition=condition))
    setting.picture("binding", contact_sheet(side_by_side(shown, SHOWN), 2))
    return result


def _scores(drawn: np.ndarray, asked: list) -> Numbers:
    right = coloured(drawn, asked)
    swapped = coloured(drawn, [pair[::-1] for pair in asked])
    return {
        "both": share(right.all(dim=1)).as_json(),
        "swapped": share(swapped.all(dim=1)).as_json(),
        "glyph": share(right[:, 0]).as_json(),
        "background": share(right[:, 1]).as_json(),
    }


def plot(numbers: Numbers, figure) -> None:
    axes = figure.subplots()
    for number, name in enumerate(("both", "glyph", "background", "swapped")):
        values = [numbers[condition][name]["value"] for condition in CONDITIONS]
        errors = [numbers[condition][name]["standard_error"] for condition in CONDITIONS]
        places = [place + 0.2 * number for place in range(len(CONDITIONS))]
        axes.bar(places, values, 0.18, yerr=errors, label=name)
    names = [name.replace(", ", ",\n") for name in CONDITIONS.values()]
    axes.set_xticks([place + 0.3 for place in range(len(CONDITIONS))], names)
    axes.set(ylabel="share of pictures with the right colours", ylim=(0, 1.15))
    axes.legend(ncols=4, loc="upper center")


def ours(numbers: Numbers) -> dict[str, str]:
    words = [
        f"{name}: {percent(numbers[condition]['both'])} right, "
        f"{percent(numbers[condition]['swapped'])} swapped"
        for condition, name in CONDITIONS.items()
    ]
    return {"Figs. 14, 15": "; ".join(words)}


STUDY = Study(
    "binding", "Figs. 14, 15", "Which colour belongs to which thing?", measure, plot, ours
)

if __name__ == "__main__":
    main(STUDY)
