"""Figures 9 and 11, and the recall of 13: what guiding the decoder costs.

The paper: guidance hurts unCLIP's FID far less than GLIDE's, and its recall does not fall. In
GLIDE's place stands the same decoder given the caption alone.
"""

from collections.abc import Callable, Sequence

from measures import Condition, curve, percent, pictures, quality, said, spread_within
from study import Numbers, Question, Setting, Study, main
from unclip.evaluation.drawing import side_by_side
from unclip.images import contact_sheet

SCALES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
TAKES = 4
"""Pictures of each caption whose distance is taken, of a quarter of the captions."""
CONDITIONS: dict[Condition, str] = {"prior": "unCLIP", "caption": "caption alone"}
SHOWN = 8


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B")
    found = curves(setting, questions)
    shown = [pictures(setting, questions[:SHOWN], {"decoder.guidance": scale}) for scale in SCALES]
    setting.picture("guidance", contact_sheet(side_by_side(shown, SHOWN), 1))
    return {"scales": list(SCALES), "curves": found}


def curves(setting: Setting, questions: Sequence[Question]) -> Numbers:
    """Quality and spread at each scale, of each condition."""
    setting.expect(len(CONDITIONS) * len(SCALES))
    few = questions[: max(2, len(questions) // TAKES)]
    found: Numbers = {}
    for condition in CONDITIONS:
        found[condition] = []
        for scale in SCALES:
            changed = {"decoder.guidance": scale}

            def compute(condition=condition, changed=changed) -> Numbers:
                drawn = pictures(setting, questions, changed, condition)
                others = [pictures(setting, few, changed, condition, t) for t in range(1, TAKES)]
                spread = spread_within(setting, [drawn[: len(few)], *others])
                return {**quality(setting, questions, drawn), "spread": spread.as_json()}

            point = setting.point(f"{condition}, guidance {scale}", compute)
            found[condition].append({"scale": scale, **point})
    return found


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


def ours(numbers: Numbers) -> dict[str, str]:
    def from_to(name: str, say: Callable[[Numbers], str]) -> str:
        return "; ".join(
            f"{CONDITIONS[condition]} {say(points[0][name])} → {say(points[-1][name])}"
            for condition, points in numbers["curves"].items()
        )

    ends = f"guidance {numbers['scales'][0]:g} → {numbers['scales'][-1]:g}: "
    return {
        "Fig. 9": f"{ends}distance within a caption {from_to('spread', said)}",
        "Fig. 11": f"{ends}FID {from_to('fid', said)}",
        "Fig. 13": f"{ends}recall {from_to('recall', percent)}",
    }


STUDY = Study(
    "decoder-guidance", "Figs. 9, 11, 13", "What does guiding the decoder cost?",
    measure, plot, ours,
)  # fmt: skip

if __name__ == "__main__":
    main(STUDY)
