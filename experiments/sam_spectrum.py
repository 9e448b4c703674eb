"""CLIP with and without sharpness-aware minimisation (§2.2): the spectrum of its embeddings.

The paper found that SAM lowers the rank of the embedding space a lot, which is what lets 319 of
1,024 components hold it. SAM computes every gradient twice; compute is equal, so it gets half of
the steps, and a third CLIP tells what half of the steps alone do.
"""

from collections.abc import Sequence

import numpy as np
import torch

from measures import percent
from study import Numbers, Question, Setting, Study, main
from unclip.clip.clip import Clip
from unclip.data.transforms import SquareResize
from unclip.evaluation.drawing import stacked
from unclip.evaluation.embeddings import effective_rank, spectrum
from unclip.evaluation.retrieval import retrieved
from unclip.evaluation.statistics import share
from unclip.presets import preset
from unclip.prior.pca import components_needed
from unclip.runtime import choose_runtime, place
from unclip.training.log import read_log
from unclip.training.session import tokenizer_for, train_into

SIZES = "emoji"
STEPS, BATCH = 300, 256
QUICK_STEPS, QUICK_BATCH = 40, 64
RADIUS = 0.1
CLIPS = {
    "without SAM": (1.0, 0.0),
    "without SAM, half the steps": (0.5, 0.0),
    "with SAM, half the steps": (0.5, RADIUS),
}
"""Share of the steps, and SAM's radius."""
CAPTIONS = 20_000
AT_ONCE = 64
UNSEEN = range(10**9, 10**9 + 4096)
"""Scenes that no training reaches, for the spectrum."""


def measure(setting: Setting) -> Numbers:
    questions = setting.questions("B")
    setting.expect(sum(map(cost, CLIPS)))
    return {
        "clips": {
            name: setting.point(name, lambda name=name: _of(setting, name, questions), cost(name))
            for name in CLIPS
        }
    }


def cost(name: str) -> float:
    """Passes through the network, as a share of a whole training's."""
    steps, radius = CLIPS[name]
    return steps * (1 + bool(radius))


def _of(setting: Setting, name: str, questions: Sequence[Question]) -> Numbers:
    clip, spent = trained(setting, name)
    scenes = UNSEEN[:256] if setting.arguments.quick else UNSEEN
    parts = (scenes[i : i + AT_ONCE] for i in range(0, len(scenes), AT_ONCE))
    seen = (stacked(np.asarray(setting.scenes.batch(part).images)) for part in parts)
    shares = spectrum(torch.cat([clip.encode_image(images) for images in seen]))
    images = clip.encode_image(stacked(question.image for question in questions))
    text = clip.encode_text([q.caption for q in questions], warn=False).embedding
    return {
        "shares": shares.tolist(),
        "effective rank": round(effective_rank(shares), 2),
        "components for 99 %": components_needed(shares, 0.01),
        "samples": len(scenes),
        "caption by image, R@1": share(retrieved(images, text)).as_json(),
        "cost": spent,
    }


def trained(setting: Setting, name: str) -> tuple[Clip, Numbers]:
    """A small CLIP; what an earlier run trained is taken up again."""
    sizes = preset(SIZES)
    part, radius = CLIPS[name]
    whole, batch = (QUICK_STEPS, QUICK_BATCH) if setting.arguments.quick else (STEPS, BATCH)
    steps = round(part * whole)
    config = sizes.training["clip"].updated(
        {
            "steps": steps,
            "batch": batch,
            "warmup": steps // 10,
            "sam_radius": radius,
            "seed": setting.seed,
        }
    )
    folder = setting.folder / f"{name.replace(' ', '-').replace(',', '')}-{steps}-{setting.seed}"
    first = range(400 if setting.arguments.quick else CAPTIONS)
    torch.manual_seed(setting.seed)
    words = tokenizer_for(
        folder,
        lambda: setting.scenes.batch(first).captions,
        sizes.clip.text_tower().vocabulary,
    )
    clip = Clip(sizes.clip.updated({"planned_batch": batch}), words)
    budget = setting.train * cost(name) / sum(map(cost, CLIPS)) if setting.train else None
    transform = SquareResize(size=setting.scenes.size)
    report = train_into(
        folder, clip, setting.scenes, config, transform=transform, max_minutes=budget
    )
    last = read_log(folder / "training" / "clip" / "log.jsonl")[-1]
    spent = {"steps": report.step, "images": report.images, "seconds": last["seconds"]}
    return place(clip.eval(), choose_runtime()), spent


def plot(numbers: Numbers, figure) -> None:
    left, right = figure.subplots(1, 2)
    for name, found in numbers["clips"].items():
        label = f"{name}: effective rank {found['effective rank']:.0f}"
        left.semilogy(found["shares"], label=label)
        right.plot(torch.tensor(found["shares"]).cumsum(0))
    left.set(xlabel="component", ylabel="share of the variance", ylim=(1e-7, 1))
    left.legend(fontsize=7)
    right.axhline(0.99, color="grey", linewidth=0.5)
    right.set(xlabel="components", ylabel="variance they hold")


def ours(numbers: Numbers) -> dict[str, str]:
    words = [
        f"{name}: effective rank {found['effective rank']:.0f}, {found['components for 99 %']} "
        f"components hold 99 %, R@1 {percent(found['caption by image, R@1'])}"
        for name, found in numbers["clips"].items()
    ]
    return {"§2.2": "; ".join(words)}


STUDY = Study(
    "sam-spectrum", "§2.2", "Does SAM lower the rank of CLIP's space?", measure, plot, ours
)

if __name__ == "__main__":
    main(STUDY)
