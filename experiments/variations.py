"""Figure 3: variations keep what a picture is about and forget the rest.

The paper's are DDIM samples with η > 0 from the inverted x_T; beside them stand fresh x_T. What
is kept is judged by an evaluator that finds the source among all sources.
"""

import torch

from codes import calibrated, decode, eight_bit, embed, invert, psnr
from measures import curve, see
from study import Numbers, Setting, Study, main
from unclip.evaluation.drawing import side_by_side, stacked
from unclip.evaluation.retrieval import retrieved
from unclip.evaluation.statistics import mean, ratio, share
from unclip.images import contact_sheet

ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = 8


def measure(setting: Setting) -> Numbers:
    images = [question.image for question in setting.questions("B")]
    real, z = stacked(images), embed(setting, images)
    sources = see(setting, eight_bit(real))
    way = calibrated(setting, images, z)
    x_T = invert(setting, images, z, way)
    plain = decode(setting, z, way, x_T)
    found = retrieved(see(setting, eight_bit(plain)), sources)

    def judged(one: torch.Tensor, other: torch.Tensor) -> Numbers:
        hits = retrieved(see(setting, eight_bit(one)), sources)
        near = (see(setting, eight_bit(one)) * sources).sum(1)
        return {
            "found": share(hits).as_json(),
            "found, share of the reconstruction": ratio(hits, found).as_json(),
            "cosine to the source": mean(near).as_json(),
            "psnr between variations": mean(psnr(one, other)).as_json(),
        }

    points, rows = [], [images[:SHOWN]]
    for eta in ETAS:
        options = way.updated({"eta": eta})
        one, two = (decode(setting, z, options, x_T, take) for take in ("one", "two"))
        points.append({"eta": eta, **judged(one, two)})
        rows.append(eight_bit(one[:SHOWN]))
    # The model's own sampler, as `unclip vary` uses it for fresh x_T.
    own = setting.model.defaults.decoder
    one, two = (decode(setting, z, own, take=take) for take in ("one", "two"))
    rows.append(eight_bit(one[:SHOWN]))
    setting.picture("variations", contact_sheet(side_by_side(rows, SHOWN), 1))
    return {"curve": points, "fresh": judged(one, two), "split": "B"}


def plot(numbers: Numbers, figure) -> None:
    left, right = figure.subplots(1, 2)
    etas = [point["eta"] for point in numbers["curve"]]
    for axes, name in ((left, "found"), (right, "psnr between variations")):
        points = numbers["curve"][1:] if axes is right else numbers["curve"]  # η = 0 is one picture
        curve(axes, etas[-len(points) :], points, name)
        axes.axhline(numbers["fresh"][name]["value"], color="grey", label="fresh x_T")
        axes.set(xlabel="η", ylabel=name)
    left.legend()


STUDY = Study("variations", "Fig. 3", "What does a variation keep?", measure, plot, count=100)

if __name__ == "__main__":
    main(STUDY)
