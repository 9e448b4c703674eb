"""What a CLIP of this recipe knows: captions found, directions used, thumbnails in z_i.

python recipes/emoji/examine_clip.py src/unclip/models/emoji/clip runs/emoji/clip
"""

import argparse
from pathlib import Path

import torch
from scenes import UNSEEN, Scenes
from torch import Tensor
from torch.nn.functional import interpolate

from unclip.checkpoint import load_stage
from unclip.clip.clip import Clip
from unclip.evaluation.drawing import stacked
from unclip.evaluation.embeddings import effective_rank, spectrum
from unclip.evaluation.retrieval import ranks
from unclip.evaluation.statistics import mean, share

SIDE = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+", help="stage folders")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--count", type=int, default=8000, help="scenes; a quarter are searched")
    arguments = parser.parse_args()
    scenes = Scenes(arguments.cache)
    for folder in arguments.clips:
        print(folder, *examine(load_stage(folder), scenes, arguments.count), sep="\n  ")


@torch.no_grad()
def examine(clip: Clip, scenes: Scenes, count: int) -> list[str]:
    """Scores with standard errors, a line each."""
    samples = scenes.batch(range(UNSEEN, UNSEEN + count))
    pictures = stacked(samples.images)
    z = torch.cat([clip.encode_image(part) for part in pictures.split(250)])
    searched = count // 4
    text = clip.encode_text(samples.captions[:searched], warn=False).embedding
    found = share(ranks(text, z[:searched]) < 1)
    small = interpolate(pictures, size=SIDE, mode="area")
    shapes = (small - small.mean(dim=(2, 3), keepdim=True)).flatten(1)
    shape = mean(explained(z, shapes))
    return [
        f"right picture first of {searched}: {found.value:.3f} ± {found.standard_error:.3f}",
        f"effective rank of z_i: {effective_rank(spectrum(z)):.1f}",
        f"variance of shapes a linear map reads from z_i: "
        f"{shape.value:.3f} ± {shape.standard_error:.3f}",
    ]


def explained(z: Tensor, targets: Tensor) -> Tensor:
    """Share of the targets' variance that a linear reading of z explains, row by row.

    The first half of the rows fits the reading, by least squares; the second half tests it.
    """
    ones = torch.cat([z, torch.ones(len(z), 1)], dim=1).double()
    half = len(z) // 2
    reading = torch.linalg.lstsq(ones[:half], targets[:half].double()).solution
    error = (ones[half:] @ reading - targets[half:]).square().sum(dim=1)
    spread = (targets[half:] - targets[:half].mean(dim=0)).square().sum(dim=1)
    return 1 - error / spread.mean()


if __name__ == "__main__":
    main()
