"""Figures 9 and 11, and the recall of 13: what guiding the decoder costs.

The paper: guidance hurts unCLIP's FID far less than GLIDE's, and its recall does not fall. In
GLIDE's place stands the same decoder given the caption alone.
"""

from measures import curve, pictures, quality, spread_within
from study import Numbers, Setting, Study, main
from unclip.evaluation.drawing import side_by_side
from unclip.images import contact_sheet

SCALES = (1.0, 1.5, 2.0, 3.0, 4.0)
TAKES = 4
CONDITIONS = {"prior": "unCLIP", "caption": "caption alone"}


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B")
    few = questions[: max(4, setting.count // 10)]
    curves: Numbers = {}
    for condition in CONDITIONS:
        curves[condition] = []
        for scale in SCALES:
            changed = {"decoder.guidance": scale}

            def compute(condition=condition, changed=changed) -> Numbers:
                drawn = pictures(setting, questions, changed, condition)
                takes = [pictures(setting, few, changed, condition, t) for t in range(TAKES)]
                spread = spread_within(setting, takes).as_json()
                return {**quality(setting, questions, drawn), "spread": spread}

            point = setting.point(f"{condition}, guidance {scale}", compute)
            curves[condition].append({"scale": scale, **point})
    shown = [pictures(setting, few[:8], {"decoder.guidance": s}) for s in SCALES]
    setting.picture("guidance", contact_sheet(side_by_side(shown, 8), 2))
    return {"scales": list(SCALES), "curves": curves}


def plot(numbers: Numbers, figure) -> None:
    wanted = {
        "kid": "KID ↓",
        "recall": "recall ↑",
        "retrieved": "caption in the top 10 ↑",
        "spread": "distance within a caption ↑",
    }
    for axes, (name, label) in zip(figure.subplots(2, 2).flat, wanted.items(), strict=True):
        for condition, points in numbers["curves"].items():
            curve(axes, numbers["scales"], points, name, label=CONDITIONS[condition])
        axes.set(xlabel="guidance scale of the decoder", ylabel=label)
    axes.legend()


STUDY = Study(
    "decoder-guidance", "Figs. 9, 11, 13", "What does guiding the decoder cost?", measure, plot
)

if __name__ == "__main__":
    main(STUDY)
