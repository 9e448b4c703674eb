"""Figure 6: a word on the picture misleads CLIP's label, not the decoder's drawing.

The paper's apple: 100 % "Granny Smith" plain, 99.98 % "iPod" with that word on it, and variations
that still show apples. Here the words are names of other concepts the model knows.
"""

from random import Random

import torch
from PIL import Image

from study import Numbers, Setting, Study, main
from unclip.evaluation.statistics import mean, share
from unclip.evaluation.typography import attack
from unclip.images import contact_sheet
from unclip.randomness import derive_seed
from unclip.types import finish

LABELS = 10
VARIATIONS = 2
TEMPLATES = ("{}",)
KINDS = {"plain": 0, "own word": 1, "another's word": 2}


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B trained")
    names = [question.rows[0].names["en"][0] for question in questions]
    options = setting.model.defaults.override({"size": "64"})
    read = torch.zeros(len(questions), 3, 2)
    drawn = torch.zeros(len(questions), 3, 2)
    cells = []
    for i, question in enumerate(questions):
        rng = Random(derive_seed(setting.seed, "attack", i))
        others = rng.sample(sorted(set(names) - {names[i]}), LABELS - 1)
        found = finish(
            attack(
                setting.model,
                Image.fromarray(question.image),
                (names[i], others[0]),
                (names[i], *others),
                options,
                variations=VARIATIONS,
                judge=setting.evaluator,
                templates=TEMPLATES,
            )
        )
        for kind, result in enumerate(found):
            read[i, kind], drawn[i, kind] = result.probabilities[:2], result.drawn[:2]
        if len(cells) < 24:
            cells += [image for a in found for image in (a.picture, a.variations[0])]
        if (i + 1) % 50 == 0:
            setting.tell(f"{i + 1} of {len(questions)}")
    setting.picture("attacks", contact_sheet(cells, 6))
    result: Numbers = {"labels": LABELS}
    for kind, place in KINDS.items():
        result[kind] = {
            "read": mean(read[:, place, 0]).as_json(),
            "read as the other": mean(read[:, place, 1]).as_json(),
            "drawn": mean(drawn[:, place, 0]).as_json(),
            "drawn as the other": mean(drawn[:, place, 1]).as_json(),
            "fooled": share(read[:, place, 1] > read[:, place, 0]).as_json(),
            "drawing fooled": share(drawn[:, place, 1] > drawn[:, place, 0]).as_json(),
        }
    return result


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


STUDY = Study(
    "typographic-attack", "Fig. 6", "Do words on a picture mislead CLIP, the decoder?",
    measure, plot, count=200,
)  # fmt: skip

if __name__ == "__main__":
    main(STUDY)
