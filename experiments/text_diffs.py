"""Figure 5: edits by text. Red glyphs are turned blue, and have to stay the glyphs they are."""

import torch

from codes import calibrated, decode, eight_bit, embed, invert
from measures import curve, read, see
from study import Numbers, Setting, Study, main
from unclip.evaluation.colours import coloured
from unclip.evaluation.retrieval import retrieved
from unclip.evaluation.statistics import mean, share
from unclip.images import contact_sheet, to_pil
from unclip.manipulation.text_diff import text_difference, trajectory

THETAS = (0.0, 0.125, 0.25, 0.375, 0.5)
SOURCE, TARGET = "red", "blue"
AMONG = 100
SHOWN = 6
ASKED = 40
"""Questions looked through for one with the source colour on another background."""


def measure(setting: Setting) -> Numbers:
    questions = [
        question
        for question in setting.questions("D trained", ASKED * setting.count)
        if question.colours and question.colours[0] == SOURCE and question.colours[1] != TARGET
    ][: setting.count]
    images = [question.image for question in questions]
    wanted = [question.caption.replace(SOURCE, TARGET, 1) for question in questions]
    asked = [(TARGET, question.colours[1]) for question in questions if question.colours]
    z = embed(setting, images)
    way = calibrated(setting, images, z)
    x_T = invert(setting, images, z, way)
    before = setting.model.encode_text([question.caption for question in questions]).embedding.cpu()
    after = setting.model.encode_text(wanted).embedding.cpu()
    pairs = zip(after, before, strict=True)
    towards = torch.cat([text_difference(torch.stack(pair)) for pair in pairs])
    captions = read(setting, wanted)
    points, frames = [], []
    for theta in THETAS:
        turned = torch.cat(
            [
                trajectory(z[i : i + 1], towards[i : i + 1], torch.tensor([theta]).double())
                for i in range(len(z))
            ]
        )
        drawn = decode(setting, turned, way, x_T)
        pictures = eight_bit(drawn)
        found = torch.cat(
            [
                retrieved(see(setting, pictures[i : i + AMONG]), captions[i : i + AMONG])
                for i in range(0, len(pictures), AMONG)
            ]
        )
        points.append(
            {
                "theta": theta,
                "target colour": share(coloured(pictures, asked)[:, 0]).as_json(),
                "glyph found": share(found).as_json(),
                "cosine to the target": mean((see(setting, pictures) * captions).sum(1)).as_json(),
            }
        )
        frames.append(drawn[:SHOWN])
    cells = [to_pil(frame[row]) for row in range(len(frames[0])) for frame in frames]
    setting.picture("text-diffs", contact_sheet(cells, len(THETAS)))
    return {"curve": points, "from": SOURCE, "to": TARGET, "among": AMONG}


def plot(numbers: Numbers, figure) -> None:
    axes = figure.subplots()
    thetas = [point["theta"] for point in numbers["curve"]]
    for name in ("target colour", "glyph found"):
        curve(axes, thetas, numbers["curve"], name, label=name)
    axes.set(xlabel="θ", ylabel="share", ylim=(0, 1))
    axes.legend()


STUDY = Study(
    "text-diffs", "Fig. 5", "Does a text diff change just that?", measure, plot, count=100
)

if __name__ == "__main__":
    main(STUDY)
