"""How far a decoder of this recipe is from the picture, and how much noise it sees, at every level.

python recipes/emoji/examine_decoder.py src/unclip/models/emoji runs/emoji

Scenes that training has not seen, their z_i and captions given. Where hardly any noise is left the
picture is all but there; an error that stays is what the network cannot pass through.
"""

import argparse
from pathlib import Path

import torch
from scenes import UNSEEN, Scenes

from unclip.checkpoint import load_stage
from unclip.decoder.decoder import Decoder
from unclip.evaluation.drawing import stacked
from unclip.evaluation.statistics import mean
from unclip.runtime import choose_runtime, place

LEVELS = (0, 10, 50, 100, 200, 300, 400, 500, 600, 700, 800, 900, 990)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="model folders")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--count", type=int, default=128, help="scenes")
    arguments = parser.parse_args()
    scenes = Scenes(arguments.cache)
    for folder in arguments.models:
        print(folder, *examine(folder, scenes, arguments.count), sep="\n  ")


@torch.no_grad()
def examine(model: Path, scenes: Scenes, count: int) -> list[str]:
    """A line a noise level: mean squared error of x̂0, and the share of the noise that ε̂ holds.

    Both with standard errors over pictures. The share is the slope of ε̂ on the noise.
    """
    clip = load_stage(model / "clip").eval()
    decoder = load_stage(model / "decoder").eval()
    assert isinstance(decoder, Decoder)
    samples = scenes.batch(range(UNSEEN, UNSEEN + count))
    images = stacked(samples.images)
    z, text = clip.encode_image(images), clip.encode_text(samples.captions, warn=False)
    place(decoder, choose_runtime())
    kept = torch.zeros(count, dtype=torch.bool)
    condition = decoder.network.condition(z, text, kept, kept)
    process = decoder.process
    lines = []
    for level in LEVELS:
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(level))
        t = torch.full((count,), level)
        x_t = process.add_noise(images, t, noise)
        found = process.interpret(decoder.network(x_t, t, condition), x_t, t)
        error = mean((found.x0 - images).square().flatten(1).mean(dim=1))
        seen = mean((found.noise * noise).flatten(1).sum(1) / noise.square().flatten(1).sum(1))
        snr = float(process.schedule.snr[level])
        lines.append(
            f"t {level:3} (SNR {snr:8.4g}): {error.value:.5f} ± {error.standard_error:.5f}, "
            f"noise seen {seen.value:.3f} ± {seen.standard_error:.3f}"
        )
    return lines


if __name__ == "__main__":
    main()
