"""Figure 8 and §5.1: the caption alone, z_t in place of z_i, or the prior's z_i.

First the shipped decoder, as it is. With ``--train`` two more decoders are trained from the same
random weights on the same samples, one on z_i and one on z_t, which is the paper's 7.99 against
9.16. They take at most half of the minutes each.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from measures import Condition, percent, pictures, quality, said
from study import Numbers, Setting, Study, main
from unclip.checkpoint import load_stage
from unclip.data.transforms import SquareResize
from unclip.decoder.decoder import Decoder
from unclip.evaluation.drawing import side_by_side
from unclip.images import contact_sheet
from unclip.pipeline import Slot
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.runtime import choose_runtime
from unclip.training.session import frozen, train_into
from unclip.types import Batch, Losses

CONDITIONS: dict[Condition, str] = {"caption": "caption", "z_t": "z_t", "prior": "prior's z_i"}
SHOWN = 15
STEPS = 1000
"""Of each training, from random weights."""


class OnText(Decoder):
    """A decoder that is trained on z_t where the paper's has z_i."""

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        assert batch.text is not None
        return super().forward(replace(batch, image_embedding=batch.text.embedding), randomness)


TRAINED: dict[str, tuple[type[Decoder], Condition]] = {
    "z_i": (Decoder, "prior"),
    "z_t": (OnText, "z_t"),
}


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B")
    result: Numbers = {"shipped": {}}
    setting.expect(len(CONDITIONS) + 2 * bool(setting.train))
    shown = []
    for condition in CONDITIONS:

        def compute(condition=condition) -> Numbers:
            drawn = pictures(setting, questions, condition=condition)
            return quality(setting, questions, drawn)

        result["shipped"][condition] = setting.point(condition, compute)
        shown.append(pictures(setting, questions[:SHOWN], condition=condition))
    setting.picture("conditions", contact_sheet(side_by_side(shown, SHOWN), 3))
    if setting.train:
        result["trained"] = _trained(setting)
    return result


def _trained(setting: Setting) -> Numbers:
    """Two decoders of equal compute, each drawn from with what it was trained on."""
    return {
        kind: setting.point(f"trained on {kind}", partial(_of, setting, kind)) for kind in TRAINED
    }


def _of(setting: Setting, kind: str) -> Numbers:
    build, condition = TRAINED[kind]
    clip = frozen(_clip_folder(setting))
    sizes = preset("emoji")
    questions = setting.questions("B")
    torch.manual_seed(setting.seed)
    config = sizes.training["decoder"].updated({"steps": STEPS, "seed": setting.seed})
    folder = setting.folder / f"trained on {kind}, seed {setting.seed}"
    report = train_into(
        folder,
        build(sizes.decoder(clip.config)),
        setting.scenes,
        config,
        clip=clip,
        transform=SquareResize(size=64),
        max_minutes=(setting.train or 0) / 2,
    )
    shipped = setting.model.decoder
    try:
        setting.model.decoder = Slot.holding(load_stage(folder / "decoder", choose_runtime()))
        drawn = pictures(setting, questions, condition=condition)
    finally:  # other studies take the same model
        setting.model.decoder = shipped
    return {"steps": report.step, "images": report.images, **quality(setting, questions, drawn)}


def _clip_folder(setting: Setting) -> Path:
    from unclip.checkpoint import read_index
    from unclip.loading import find

    root = find(setting.arguments.model)
    name = read_index(root).clip
    assert name is not None, "the emoji model has its CLIP"
    return root / name


def plot(numbers: Numbers, figure) -> None:
    groups = {CONDITIONS[name]: values for name, values in numbers["shipped"].items()}
    groups |= {f"trained on\n{kind}": values for kind, values in numbers.get("trained", {}).items()}
    wanted = {"fid": "FID ↓", "kid": "KID ↓", "retrieved": "caption in the top 10 ↑"}
    for axes, (name, label) in zip(figure.subplots(1, 3), wanted.items(), strict=True):
        values = [point[name]["value"] for point in groups.values()]
        errors = [point[name]["standard_error"] for point in groups.values()]
        axes.bar(list(groups), values, yerr=errors)
        axes.set(ylabel=label)
        axes.tick_params(axis="x", labelrotation=30)


def ours(numbers: Numbers) -> dict[str, str]:
    shipped = numbers["shipped"]
    found = [f"{CONDITIONS[name]} {percent(shipped[name]['retrieved'])}" for name in CONDITIONS]
    fid = [f"{CONDITIONS[name]} {said(shipped[name]['fid'])}" for name in CONDITIONS]
    trained = numbers.get("trained", {})
    fid += [f"trained on {kind} {said(point['fid'])}" for kind, point in trained.items()]
    return {"Fig. 8": f"caption found: {', '.join(found)}", "§5.1": f"FID: {', '.join(fid)}"}


STUDY = Study(
    "conditioning", "Fig. 8, §5.1", "Caption, z_t or the prior's z_i?", measure, plot, ours
)

if __name__ == "__main__":
    main(STUDY)
