"""Figure 6: a word on the picture misleads CLIP's label, not the decoder's drawing.

The paper's apple: 100 % "Granny Smith" plain, 99.98 % "iPod" with that word on it, and variations
that still show apples. Here the words are names of other concepts the model knows.
"""

from random import Random

import torch
from PIL import Image

from measures import percent
from study import Numbers, Question, Setting, Study, main
from unclip.evaluation.statistics import mean, share
from unclip.evaluation.typography import Attack, attack
from unclip.images import contact_sheet
from unclip.options import GenerateOptions
from unclip.randomness import derive_seed
from unclip.types import finish

LABELS = 10
VARIATIONS = 1
"""Of each picture with each word, so that all that are drawn are independent."""
AT_ONCE = 50
"""Questions that make a point."""
TEMPLATES = ("{}",)
KINDS = {"plain": 0, "own word": 1, "another's word": 2}
SHOWN = 6


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B trained")
    words = sorted({_name(question) for question in questions})
    starts = range(0, len(questions), AT_ONCE)
    setting.expect(len(starts))
    read, drawn = [], []
    for start in starts:
        part = questions[start : start + AT_ONCE]

        def compute(part=part) -> Numbers:
            found = [_attacked(setting, question, words) for question in part]
            return {
                "read": [[_two(a.probabilities) for a in kinds] for kinds in found],
                "drawn": [[_two(a.drawn) for a in kinds] for kinds in found],
            }

        point = setting.point(f"pictures from {start}", compute)
        read += point["read"]
        drawn += point["drawn"]
    shown = [a for question in questions[:SHOWN] for a in _attacked(setting, question, words)]
    cells = [image for a in shown for image in (a.picture, a.variations[0])]
    setting.picture("attacks", contact_sheet(cells, 2 * len(KINDS)))
    return {"labels": LABELS, **_scores(torch.tensor(read), torch.tensor(drawn))}


def _attacked(setting: Setting, question: Question, words: list[str]) -> list[Attack]:
    """The picture plain, with its own name and with another's on it."""
    name = _name(question)
    rng = Random(derive_seed(setting.seed, "attack", question.key))
    others = rng.sample([word for word in words if word != name], LABELS - 1)
    found = attack(
        setting.model,
        Image.fromarray(question.image),
        (name, others[0]),
        (name, *others),
        _options(setting, question),
        variations=VARIATIONS,
        judge=setting.evaluator,
        templates=TEMPLATES,
    )
    return finish(found)


def _options(setting: Setting, question: Question) -> GenerateOptions:
    seed = derive_seed(setting.seed, "drawn", question.key)
    return setting.model.defaults.override({"size": "64", "seed": str(seed)})


def _name(question: Question) -> str:
    return question.rows[0].names["en"][0]


def _two(probabilities: torch.Tensor) -> list[float]:
    """Of the picture's own name and of the other."""
    return [round(value, 6) for value in probabilities[:2].tolist()]


def _scores(read: torch.Tensor, drawn: torch.Tensor) -> Numbers:
    """Of probabilities [n kinds 2]."""
    return {
        kind: {
            "read": mean(read[:, place, 0]).as_json(),
            "read as the other": mean(read[:, place, 1]).as_json(),
            "drawn": mean(drawn[:, place, 0]).as_json(),
            "drawn as the other": mean(drawn[:, place, 1]).as_json(),
            "fooled": share(read[:, place, 1] > read[:, place, 0]).as_json(),
            "drawing fooled": share(drawn[:, place, 1] > drawn[:, place, 0]).as_json(),
        }
        for kind, place in KINDS.items()
    }


def plot(numbers: Numbers, figure) -> None:
    axes = figure.subplots()
    bars = ("read", "read as the other", "drawn", "drawn as the other")
    for number, name in enumerate(bars):
        values = [numbers[kind][name]["value"] for kind in KINDS]
        errors = [numbers[kind][name]["standard_error"] for kind in KINDS]
        places = [place + 0.2 * number for place in range(len(KINDS))]
        axes.bar(places, values, 0.18, yerr=errors, label=name)
    axes.set_xticks([place + 0.3 for place in range(len(KINDS))], list(KINDS))
    axes.set(ylabel=f"mean probability among {numbers['labels']} labels")
    axes.legend()


def ours(numbers: Numbers) -> dict[str, str]:
    plain, other = numbers["plain"], numbers["another's word"]
    return {
        "Fig. 6": f"taken for the word: {percent(plain['fooled'])} without it, "
        f"{percent(other['fooled'])} with it; what is drawn from that "
        f"{percent(other['drawing fooled'])}"
    }


STUDY = Study(
    "typographic-attack", "Fig. 6", "Do words on a picture mislead CLIP, the decoder?",
    measure, plot, ours,
)  # fmt: skip

if __name__ == "__main__":
    main(STUDY)
