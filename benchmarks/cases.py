"""What is compared with what. Everything a figure depends on is stated here."""

from dataclasses import dataclass, field
from typing import Any

from environments import OURS

AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""No instructions beyond AVX2, as on most laptops."""


@dataclass(frozen=True)
class Side:
    """One side: where it runs, what it builds."""

    label: str
    environment: str
    subject: str
    """``file.Class`` in the folder ``subjects``."""
    options: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A comparison of two sides, or a measurement of ours alone."""

    name: str
    title: str
    ours: Side
    theirs: Side | None
    must: float | None = None
    """How many times faster we mean to be."""
    by_work: bool = False
    """The sides' networks differ: compare time per floating-point operation."""
    per: int = 1
    """What a call's time is divided by, such as steps of a loop."""
    environ: dict[str, str] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    """Options of a small version of both sides, to try the command itself."""
    named: bool = False
    """Run only when it is asked for by name."""
    stages: tuple[str, ...] = ()
    """One complete run of each side, step by step in turns: the stages, in the order in which the
    option ``steps`` counts their steps."""


KARLO = {"channels": 320, "depth": 3, "context": 1536, "batch": 2}
SMALL = {"channels": 64, "depth": 1, "context": 128, "batch": 2}


def _forward(
    name: str,
    title: str,
    must: float | None,
    ours: dict[str, Any],
    theirs: dict[str, Any],
    environ: dict[str, str] | None = None,
) -> Case:
    return Case(
        name,
        f"Decoder step, Karlo's layout, {title}",
        Side("unclip", OURS, "ours.DecoderForward", KARLO | ours),
        Side("diffusers", "diffusers", "theirs_diffusers.DecoderForward", KARLO | theirs),
        must,
        environ=environ or {},
        quick=SMALL,
    )


def _loop(sampler: str, steps: int) -> Case:
    variance = "learned_range" if sampler == "ancestral" else "fixed_small"
    options = {"sampler": sampler, "steps": steps, "variance": variance, "batch": 4}
    # diffusers' solvers clip x0 to a percentile or not at all; ours then do not clip either.
    clip = {"clip": "none" if sampler in ("dpm++", "unipc") else "static"}
    return Case(
        f"loop-{sampler.rstrip('+')}",
        f"Sampler alone, {sampler}, per step of {steps}",
        Side("unclip", OURS, "ours.SamplerLoop", options | clip),
        Side("diffusers", "diffusers", "theirs_diffusers.SamplerLoop", options),
        per=steps,
    )


def _training(name: str, title: str, must: float | None, precision: str) -> Case:
    return Case(
        name,
        f"Training step, {title}",
        Side("unclip", OURS, "ours.TrainingStep", {"channels": 64, "depth": 3, "batch": 8}),
        Side(
            "DALLE2-pytorch",
            "dalle2-pytorch",
            "theirs_dalle2.TrainingStep",
            {"dim": 80, "blocks": 2, "batch": 8, "precision": precision},
        ),
        must,
        by_work=True,
        quick={"batch": 2},
    )


def _memory(stored: str) -> Case:
    options = {"model": f"random-karlo-{stored}", "images": 1, "steps": 2, "precision": "bf16"}
    return Case(
        f"memory-{stored}",
        f"`unclip generate` of one 256 px image, Karlo's size stored in {stored}, 2 steps a stage",
        Side("unclip", OURS, "ours.Generate", options),
        None,
        quick={"model": "emoji"},
        named=True,
    )


def _pipeline(name: str, title: str, must: float, theirs: dict[str, Any]) -> Case:
    options = {"steps": [25, 25, 7], "small": False}
    return Case(
        name,
        f"Karlo from text to 256 px, 25 + 25 + 7 steps, {title}",
        Side("unclip", OURS, "ours.KarloPipeline", options),
        Side("diffusers", "diffusers", "theirs_karlo.KarloPipeline", options | theirs),
        must,
        quick={"steps": [2, 3, 2], "small": True},
        named=True,
        stages=("prior", "decoder", "upsampler"),
    )


_GUIDED = {"channels": 128, "depth": 1, "steps": 16, "batch": 4}

CASES = (
    _forward("decoder", "both at their defaults", 5.0, {}, {}),
    _forward(
        "decoder-equal",
        "both bfloat16, channels last",
        1.2,
        {"precision": "bf16"},
        {"precision": "bf16", "channels_last": True},
    ),
    _forward("decoder-fp32", "both float32", 1.0, {"precision": "fp32"}, {}),
    _forward("decoder-avx2", "both at their defaults, AVX2 alone", None, {}, {}, AVX2),
    _training("training", "both at their defaults", 2.0, "no"),
    _training("training-bf16", "both bfloat16", None, "bf16"),
    _loop("ancestral", 50),
    _loop("ddim", 50),
    _loop("dpm++", 50),
    _loop("unipc", 50),
    Case(
        "sampling",
        "Four 64 px images, 16 guided DPM-Solver++ steps of a small decoder",
        Side("unclip", OURS, "ours.GuidedSampling", _GUIDED),
        Side("diffusers", "diffusers", "theirs_diffusers.GuidedSampling", _GUIDED),
        quick={"channels": 64, "steps": 2},
    ),
    Case(
        "generate",
        "`unclip generate` of four 256 px images, start of the process included",
        Side("unclip", OURS, "ours.Generate", {"model": "emoji"}),
        None,
    ),
    _pipeline("karlo", "both at their defaults", 5.0, {}),
    _pipeline(
        "karlo-equal",
        "both bfloat16, channels last",
        1.2,
        {"precision": "bf16", "channels_last": True},
    ),
    _memory("fp16"),
    _memory("fp32"),
)
