"""Figure 5: edits by text. Red glyphs are turned blue, and have to stay the glyphs they are.

The colour is read from the pixels. The glyph is found if the evaluator takes the caption with the
new colour for the right one among a hundred. It does so for a part of real pictures alone, so the
share is corrected for that and for chance: (R − chance) / (R_real − chance). All pictures are
walked back without guidance, and drawn from x_T without and with it; the bars are for with.
"""

from functools import cached_property, partial

import torch
from torch import Tensor

from codes import CURVE_STEPS, Codes, decode, eight_bit
from measures import AMONG, curve, found_among, percent, read, see
from study import Numbers, Question, Setting, Study, bar, main
from unclip.evaluation.colours import coloured
from unclip.evaluation.drawing import stacked
from unclip.evaluation.statistics import corrected, mean, share
from unclip.images import contact_sheet, to_pil
from unclip.manipulation.text_diff import text_difference, trajectory

THETAS = (0.0, 0.125, 0.25, 0.375, 0.5)
GUIDANCE = (1.0, 3.0)
SOURCE, TARGET = "red", "blue"
COST, REAL_COST = {1.0: 1.0, 3.0: 2.0}, 0.1
"""Of drawing pictures by guidance, and of looking at them."""
SHOWN = 6
ASKED = 30
"""Questions looked through for one with the source colour on another background."""


class Edits:
    """Pictures of the source colour, and what turns them to the target."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.questions = _asked(setting)
        self.codes = Codes(setting, [q.image for q in self.questions], CURVE_STEPS)
        self.wanted = [q.caption.replace(SOURCE, TARGET, 1) for q in self.questions]
        self.colours = [(TARGET, q.colours[1]) for q in self.questions if q.colours]

    @cached_property
    def captions(self) -> Tensor:
        """What is wanted, as the evaluator reads it."""
        return read(self.setting, self.wanted)

    @cached_property
    def towards(self) -> Tensor:
        """z_d of each."""
        model = self.setting.model
        before = model.encode_text([q.caption for q in self.questions]).embedding.cpu()
        after = model.encode_text(self.wanted).embedding.cpu()
        pairs = zip(after, before, strict=True)
        return torch.cat([text_difference(torch.stack(pair)) for pair in pairs])

    def draw(self, theta: float, guidance: float, count: int | None = None) -> Tensor:
        codes, angle = self.codes, torch.tensor([theta], dtype=torch.float64)
        rows = zip(codes.z[:count, None], self.towards[:count, None], strict=True)
        turned = torch.cat([trajectory(z, z_d, angle) for z, z_d in rows])
        way = codes.way.updated({"guidance": guidance})
        return decode(self.setting, turned, way, codes.x_T[:count])

    def scores(self, theta: float, guidance: float) -> Numbers:
        pictures = eight_bit(self.draw(theta, guidance))
        seen = see(self.setting, pictures)
        found = found_among(seen, self.captions)
        return {
            "target colour": share(coloured(pictures, self.colours)[:, 0]).as_json(),
            "glyph found": share(found).as_json(),
            "glyph found, corrected": corrected(found, self.real_found, 1 / self.among).as_json(),
            "cosine to the target": mean((seen * self.captions).sum(1)).as_json(),
        }

    @property
    def among(self) -> int:
        """Captions that the right one is found among."""
        return min(AMONG, len(self.questions))

    @cached_property
    def real_found(self) -> Tensor:
        """Whether the evaluator finds the glyphs of the pictures as they were."""
        seen = see(self.setting, eight_bit(stacked(self.codes.images)))
        captions = read(self.setting, [question.caption for question in self.questions])
        return found_among(seen, captions)

    def real(self) -> Numbers:
        return {"glyph found": share(self.real_found).as_json()}


def _asked(setting: Setting) -> list[Question]:
    return [
        question
        for question in setting.questions("D trained", ASKED * setting.count)
        if question.colours and question.colours[0] == SOURCE and question.colours[1] != TARGET
    ][: setting.count]


def measure(setting: Setting) -> Numbers:
    edits = Edits(setting)
    setting.expect(sum(COST[scale] for scale in GUIDANCE) * len(THETAS) + REAL_COST)
    curves = {f"guidance {scale:g}": _curve(setting, edits, scale) for scale in GUIDANCE}
    frames = [edits.draw(theta, GUIDANCE[-1], SHOWN) for theta in THETAS]
    cells = [to_pil(frame[row]) for row in range(len(frames[0])) for frame in frames]
    setting.picture("text-diffs", contact_sheet(cells, len(THETAS)))
    name, points = list(curves.items())[-1]
    last, about = points[-1], f"θ {points[-1]['theta']}, {name}"
    bars = [
        bar(f"{about}: target colour", last["target colour"], least=0.7),
        bar(f"{about}: glyph found, corrected", last["glyph found, corrected"], least=0.6),
    ]
    return {
        "curves": curves,
        "real pictures": setting.point("real pictures", edits.real, REAL_COST),
        "from": SOURCE,
        "to": TARGET,
        "among": edits.among,
        "bars": bars,
    }


def _curve(setting: Setting, edits: Edits, guidance: float) -> list[Numbers]:
    found = []
    for theta in THETAS:
        point = setting.point(
            f"θ {theta}, guidance {guidance:g}",
            partial(edits.scores, theta, guidance),
            COST[guidance],
        )
        found.append({"theta": theta, **point})
    return found


def plot(numbers: Numbers, figure) -> None:
    axes = figure.subplots()
    for said, points in numbers["curves"].items():
        thetas = [point["theta"] for point in points]
        for name in ("target colour", "glyph found"):
            curve(axes, thetas, points, name, label=f"{name}, {said}")
    real = numbers["real pictures"]["glyph found"]["value"]
    axes.axhline(real, color="grey", label="glyph found in the real pictures")
    axes.set(xlabel="θ", ylabel="share", ylim=(0, 1))
    axes.legend()


def ours(numbers: Numbers) -> dict[str, str]:
    name, points = list(numbers["curves"].items())[-1]
    last = points[-1]
    return {
        "Fig. 5": f"{numbers['from']} → {numbers['to']} at θ = {last['theta']}, {name}: colour "
        f"{percent(last['target colour'])}, glyph found {percent(last['glyph found, corrected'])} "
        "of what is found of real pictures"
    }


STUDY = Study("text-diffs", "Fig. 5", "Does a text diff change just that?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
