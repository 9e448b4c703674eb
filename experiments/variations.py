"""Figure 3: variations keep what a picture is about and forget the rest.

The paper's are DDIM samples with η > 0 from the inverted x_T; beside them stand fresh x_T. What
is kept is judged by an evaluator that finds the source among a hundred.
"""

from functools import cached_property

import numpy as np
from torch import Tensor

from codes import CURVE_STEPS, Codes, decode, eight_bit, psnr
from measures import AMONG, curve, found_among, percent, said, see
from study import Numbers, Setting, Study, bar, main
from unclip.evaluation.drawing import side_by_side
from unclip.evaluation.statistics import mean, ratio, share
from unclip.images import contact_sheet

ETAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHOWN = 6
FRESH = "fresh x_T"


class Judged:
    """Variations of pictures, and how well their sources are found."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        images = [question.image for question in setting.questions("B")]
        self.codes = Codes(setting, images, CURVE_STEPS)

    @cached_property
    def sources(self) -> Tensor:
        return see(self.setting, np.stack(self.codes.images))

    @cached_property
    def reconstructed(self) -> Tensor:
        """Whether the source of each reconstruction is found."""
        return self.setting.kept("reconstructed", lambda: self._found(self.draw(0.0, "")))

    def draw(self, eta: float | None, take: str, count: int | None = None) -> Tensor:
        """Pictures walked to from x_T with DDIM noise η; without one from fresh x_T."""
        codes, rows = self.codes, slice(count)
        if eta is None:  # the model's own sampler, as `unclip vary` uses it
            own = self.setting.model.defaults.decoder
            return decode(self.setting, codes.z[rows], own, take=take)
        way = codes.way.updated({"eta": eta})
        return decode(self.setting, codes.z[rows], way, codes.x_T[rows], take)

    def scores(self, eta: float | None) -> Numbers:
        one, two = self.draw(eta, "one"), self.draw(eta, "two")
        hits = self._found(one)
        near = (see(self.setting, eight_bit(one)) * self.sources).sum(1)
        return {
            "found": share(hits).as_json(),
            "found, share of the reconstruction": ratio(hits, self.reconstructed).as_json(),
            "cosine to the source": mean(near).as_json(),
            "psnr between variations": mean(psnr(one, two)).as_json(),
        }

    def _found(self, pictures: Tensor) -> Tensor:
        return found_among(see(self.setting, eight_bit(pictures)), self.sources)


def measure(setting: Setting) -> Numbers:
    judged = Judged(setting)
    setting.expect(len(ETAS) + 1)
    points = [
        {"eta": eta, **setting.point(f"η {eta}", lambda eta=eta: judged.scores(eta))}
        for eta in ETAS
    ]
    fresh = setting.point(FRESH, lambda: judged.scores(None))
    drawn = [eight_bit(judged.draw(eta, "one", SHOWN)) for eta in (*ETAS, None)]
    rows = [judged.codes.images[:SHOWN], *drawn]
    setting.picture("variations", contact_sheet(side_by_side(rows, SHOWN), 1))
    share_found = fresh["found, share of the reconstruction"]
    bars = [
        bar("fresh x_T: source found, as a share of the reconstruction's", share_found, least=0.8),
        bar("fresh x_T: PSNR between variations in dB", fresh["psnr between variations"], most=20),
    ]
    return {
        "curve": points,
        "fresh": fresh,
        "reconstructed": share(judged.reconstructed.bool()).as_json(),
        "split": "B",
        "among": AMONG,
        "bars": bars,
    }


def plot(numbers: Numbers, figure) -> None:
    left, right = figure.subplots(1, 2)
    etas = [point["eta"] for point in numbers["curve"]]
    for axes, name in ((left, "found"), (right, "psnr between variations")):
        points = numbers["curve"][1:] if axes is right else numbers["curve"]  # η = 0 is one picture
        curve(axes, etas[-len(points) :], points, name)
        axes.axhline(numbers["fresh"][name]["value"], color="grey", label=FRESH)
        axes.set(xlabel="η", ylabel=name)
    left.legend()


def ours(numbers: Numbers) -> dict[str, str]:
    fresh = numbers["fresh"]
    return {
        "Fig. 3": f"source found among {numbers['among']}: reconstruction "
        f"{percent(numbers['reconstructed'])}, η = 1 {percent(numbers['curve'][-1]['found'])}, "
        f"fresh x_T {percent(fresh['found'])}; between two of these "
        f"{said(fresh['psnr between variations'], 1)} dB"
    }


STUDY = Study("variations", "Fig. 3", "What does a variation keep?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
