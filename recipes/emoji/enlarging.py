"""How well the upsamplers enlarge, against bicubic: unseen drawings and two photographs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from held_out import held_out
from jaxtyping import Float
from judge import Judge
from scenes import Scenes
from torch import Tensor

from unclip.diffusion.options import SamplingOptions
from unclip.evaluation.drawing import pixels, stacked
from unclip.evaluation.report import Row
from unclip.evaluation.statistics import mean
from unclip.images import to_tensor
from unclip.randomness import Randomness, derive_seed
from unclip.types import finish
from unclip.upsampler.resize import enlarge, shrink

GAIN = 2.0
"""Decibels above bicubic an upsampler should reach on drawings."""
LARGE = 24
"""Drawings at 1024 px: rendering and enlarging take a second each."""
TILE = 64
"""Side of the tiles whose features are compared: the evaluator's own size."""


def enlarging(judge: Judge, cache: Path, count: int) -> list[Row]:
    """Rows for every upsampler of the model."""
    rows: list[Row] = []
    for size, slot in judge.model.upsamplers.items():
        with slot.use() as stage:
            factor = stage.config.factor
        kinds: dict[str, Iterator[Tensor]] = {
            "drawings never seen": _drawings(cache, size, count if size <= 256 else LARGE),
            "photographs": _photographs(size),
        }
        for kind, truths in kinds.items():
            rows += _compared(judge, f"upsampler to {size} px, {kind}", truths, size, factor)
    return rows


def _compared(
    judge: Judge, about: str, truths: Iterator[Tensor], size: int, factor: int
) -> list[Row]:
    figures: dict[str, list[float]] = {"ours": [], "bicubic": [], "near": [], "far": []}
    for number, truth in enumerate(truths):
        low = shrink(truth[None], factor)
        ours = _enlarged(judge, low, size, derive_seed(judge.seed, about, number))
        bicubic = enlarge(low, factor).clamp(-1, 1)
        figures["ours"].append(psnr(ours[0], truth))
        figures["bicubic"].append(psnr(bicubic[0], truth))
        place = busiest(truth)
        views = [judge.see(pixels(image[..., place[0], place[1]])) for image in
                 (truth[None], ours, bicubic)]  # fmt: skip
        figures["near"].append(1 - float(views[0][0] @ views[1][0]))
        figures["far"].append(1 - float(views[0][0] @ views[2][0]))
    if not figures["ours"]:
        return []
    judge.tell(f"{about}: {len(figures['ours'])}")
    values = {name: torch.tensor(numbers) for name, numbers in figures.items()}
    drawings = "drawings" in about
    gain = mean(values["ours"] - values["bicubic"])
    closer = mean(values["far"] - values["near"])
    return [
        Row(about, "ours", "PSNR, dB", mean(values["ours"])),
        Row(about, "bicubic", "PSNR, dB", mean(values["bicubic"])),
        Row(about, "ours", "PSNR above bicubic, dB", gain, GAIN if drawings else None),
        Row(about, "ours", "feature distance", mean(values["near"])),
        Row(about, "bicubic", "feature distance", mean(values["far"])),
        Row(about, "ours", "feature distance below bicubic's by", closer, 0 if drawings else None),
    ]


def psnr(image: Float[Tensor, "3 h w"], truth: Float[Tensor, "3 h w"]) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]; at most 60."""
    error = (image.float() - truth.float()).square().mean().item()
    return float(10 * np.log10(4 / max(error, 4e-6)))


def busiest(image: Float[Tensor, "3 h w"]) -> tuple[slice, slice]:
    """The tile with the most contrast."""
    tiles = image.mean(dim=0).unfold(0, TILE, TILE).unfold(1, TILE, TILE)
    spread = tiles.std(dim=(2, 3))
    row, column = divmod(int(spread.argmax()), spread.shape[1])
    return slice(TILE * row, TILE * (row + 1)), slice(TILE * column, TILE * (column + 1))


def _enlarged(judge: Judge, low: Tensor, size: int, seed: int) -> Tensor:
    options: SamplingOptions = judge.options(size).upsampler[str(size)]
    slot = judge.model.upsamplers[size]
    images = finish(slot.sample(lambda stage: stage.sample(low, options, Randomness([seed]))))
    return images.float().cpu().clamp(-1, 1)


def _drawings(cache: Path, size: int, count: int) -> Iterator[Tensor]:
    """Single drawings of splits B and C, which no stage was trained on."""
    if size <= 256:
        source = Scenes(cache, size=size)
        half = (count + 1) // 2
        for split in ("B", "C"):
            for question in held_out(source, split, half):
                yield stacked([question.image])[0]
        return
    # Only training drawings are packed at 1024 px: these are rendered here.
    try:
        from build import render
        from drawings import collect

        table, artwork = collect(cache)
    except (ImportError, OSError):
        return
    held = [i for i, d in enumerate(table.drawings) if d.split in ("B", "C") and d.vector]
    for i in held[:: max(1, len(held) // count)][:count]:
        picture = render(table.drawings[i].art, artwork[i], size)
        if picture is not None:
            yield to_tensor(_on_white(np.asarray(picture.convert("RGBA"))))


def _on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)


def _photographs(size: int) -> Iterator[Tensor]:
    """Squares of scikit-learn's two photographs, of at most 427 pixels a side."""
    if size > 256:
        return
    try:
        from sklearn.datasets import load_sample_images
    except ImportError:
        return
    for photograph in load_sample_images().images:
        for left in range(0, photograph.shape[1] - size + 1, size // 2):
            top = (photograph.shape[0] - size) // 2
            yield to_tensor(photograph[top : top + size, left : left + size])
