"""The autoregressive prior against the diffusion prior, trained alike (§2.2, Table 1, Table 2).

Both see the same batches of the same frozen CLIP for the same number of steps. The paper found
the diffusion prior cheaper and better.
"""

import time
from functools import cache
from typing import Any

import torch
from torch import Tensor

from measures import percent, said
from study import Numbers, Setting, Study, main
from unclip.checkpoint import count_parameters, load_stage
from unclip.clip.clip import Clip
from unclip.data.transforms import SquareResize
from unclip.diffusion.options import SamplingOptions
from unclip.evaluation.drawing import stacked
from unclip.evaluation.embeddings import effective_rank, prior_scores, spectrum
from unclip.evaluation.statistics import mean
from unclip.presets import preset
from unclip.prior.autoregressive import AutoregressivePrior
from unclip.prior.kinds import build_prior
from unclip.prior.options import PriorSampling
from unclip.randomness import Randomness, derive_seed
from unclip.runtime import choose_runtime
from unclip.training.log import read_log
from unclip.training.session import train_into
from unclip.types import finish

SIZES = "emoji"
STEPS, BATCH = 500, 256
QUICK_STEPS, QUICK_BATCH, QUICK_BUCKETS = 60, 64, 16
SEEDS = 4
"""Embeddings drawn of each caption, for their diversity."""
AT_ONCE = 64
SHOWN = {
    "cosine to the true z_i": "cosine to the true z_i ↑",
    "true z_i by drawn, R@10": "it in the top 10 ↑",
    "distance between seeds": "distance between seeds",
    "seconds an embedding": "seconds an embedding ↓",
}


def measure(setting: Setting) -> Numbers:
    kinds = {name: kind for kind in ("diffusion", "autoregressive") for name in settings_of(kind)}
    setting.expect(len(kinds))
    with setting.model.clip.use() as clip:
        questions = setting.questions("B")
        images = [question.image for question in questions]
        parts = range(0, len(images), AT_ONCE)
        real = torch.cat([clip.encode_image(stacked(images[i : i + AT_ONCE])) for i in parts])
        text = clip.encode_text([question.caption for question in questions], warn=False)
        keys = [question.key for question in questions]
        found: Numbers = {"spectra": {"real z_i": curve(real)}, "priors": {}}

        @cache
        def once(kind: str) -> tuple[Any, Numbers]:
            return trained(setting, kind, clip)

        for name, kind in kinds.items():

            def compute(name=name, kind=kind) -> Numbers:
                prior, cost = once(kind)
                drawn, seconds = draw(setting, prior, settings_of(kind)[name], text, keys)
                first = drawn[:, 0]
                scores = {
                    k: v.as_json() for k, v in prior_scores(first, real, text.embedding).items()
                }
                scores["distance between seeds"] = spread(drawn)
                timed = {"value": round(seconds, 5), "standard_error": None, "n": len(keys)}
                scores["seconds an embedding"] = timed
                return {"scores": scores | {"cost": cost}, "spectrum": curve(first)}

            point = setting.point(name, compute)
            found["priors"][name] = point["scores"]
            found["spectra"][name] = point["spectrum"]
    return found


def settings_of(kind: str) -> dict[str, PriorSampling]:
    """How each prior is asked: as the paper does, and guided."""
    if kind == "diffusion":
        walk = SamplingOptions(sampler="dpm++", steps=16, clip="none").model_dump()
        return {
            "diffusion": PriorSampling(**walk),
            "diffusion, guidance 2": PriorSampling(**walk | {"guidance": 2.0}),
        }
    return {
        "autoregressive": PriorSampling(),
        "autoregressive, guidance 2": PriorSampling(guidance=2.0),
        "autoregressive, whole dot range": PriorSampling(dot_percentile=0.0),
    }


def trained(setting: Setting, kind: str, clip: Clip) -> tuple[Any, Numbers]:
    """A prior of the emoji size; what an earlier run trained is taken up again."""
    sizes = preset(SIZES)
    sizes = sizes.with_autoregressive() if kind == "autoregressive" else sizes
    steps, batch = (QUICK_STEPS, QUICK_BATCH) if setting.arguments.quick else (STEPS, BATCH)
    config = sizes.training["prior"].updated(
        {
            "steps": steps,
            "batch": batch,
            "warmup": min(100, steps // 10),
            "save_every": 200,
            "seed": setting.seed,
        }
    )
    torch.manual_seed(setting.seed)
    shape = sizes.prior(clip.config)
    if setting.arguments.quick and kind == "autoregressive":
        shape = shape.updated({"network": {"buckets": QUICK_BUCKETS}})
    prior = build_prior(shape)
    folder = setting.folder / f"{kind}-{steps}-{setting.seed}"
    half = setting.train / 2 if setting.train else None
    transform = SquareResize(size=setting.scenes.size)
    report = train_into(
        folder, prior, setting.scenes, config, clip=clip, transform=transform, max_minutes=half
    )
    last = read_log(folder / "training" / "prior" / "log.jsonl")[-1]
    cost = {
        "steps": report.step,
        "embeddings": report.images,
        "seconds": last["seconds"],
        "parameters": count_parameters(folder / "prior"),
    }
    finished = load_stage(folder / "prior", choose_runtime())
    if isinstance(finished, AutoregressivePrior):
        cost["components"] = len(finished.codec.components)
        cost["variance outside them"] = round(finished.codec.error, 5)
    return finished, cost


@torch.no_grad()
def draw(
    setting: Setting, prior: Any, options: PriorSampling, text: Any, keys: list[str]
) -> tuple[Tensor, float]:
    """Embeddings [captions seeds d], one candidate each, and the seconds that one took."""
    started, takes = time.perf_counter(), []
    for take in range(SEEDS):
        parts = []
        for index in torch.arange(len(keys)).split(AT_ONCE):
            seeds = [derive_seed(setting.seed, take, keys[i]) for i in index]
            sampling = prior.sample(text.take(index), options, Randomness(seeds), candidates=1)
            parts.append(finish(sampling).float().cpu())
        takes.append(torch.cat(parts))
    seconds = time.perf_counter() - started
    return torch.stack(takes, dim=1), seconds / (SEEDS * len(keys))


def spread(drawn: Tensor) -> Numbers:
    """Mean of 1 − cosine between embeddings of one caption."""
    similar = torch.einsum("n a d, n b d -> n a b", drawn, drawn)
    others = ~torch.eye(SEEDS, dtype=torch.bool)
    return mean(1 - similar[:, others].mean(dim=1)).as_json()


def curve(embeddings: Tensor) -> Numbers:
    shares = spectrum(embeddings)
    return {"shares": shares.tolist(), "effective rank": round(effective_rank(shares), 2)}


def plot(numbers: Numbers, figure) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.4))
    axes = left.subplots()
    for name, found in numbers["spectra"].items():
        if "," not in name:
            axes.semilogy(found["shares"], label=f"{name}, rank {found['effective rank']:.0f}")
    axes.set(xlabel="component", ylabel="share of the variance", ylim=(1e-6, 1))
    axes.legend(fontsize=7)
    names = list(numbers["priors"])
    for axes, (figure_name, label) in zip(
        right.subplots(2, 2, sharey=True).flat, SHOWN.items(), strict=True
    ):
        rows = [numbers["priors"][name][figure_name] for name in names]
        errors = [row["standard_error"] or 0 for row in rows]
        axes.barh(names, [row["value"] for row in rows], xerr=errors, color="tab:blue")
        axes.set_title(label, fontsize=8)
        axes.tick_params(labelsize=6)


def ours(numbers: Numbers) -> dict[str, str]:
    words = [
        f"{name}: cosine {said(row['cosine to the true z_i'], 3)}, found among ten nearest "
        f"{percent(row['true z_i by drawn, R@10'])}, "
        f"{1000 * row['seconds an embedding']['value']:.1f} ms each"
        for name, row in numbers["priors"].items()
        if "," not in name
    ]
    return {"§2.2": "; ".join(words)}


STUDY = Study("priors", "§2.2", "Which prior, trained alike?", measure, plot, ours)

if __name__ == "__main__":
    main(STUDY)
