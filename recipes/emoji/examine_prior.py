"""How near a prior's z_i come to those of pictures it never saw, by guidance and candidates.

python recipes/emoji/examine_prior.py src/unclip/models/emoji runs/emoji
"""

import argparse
from pathlib import Path

import torch
from scenes import UNSEEN, Scenes
from torch import Tensor

from unclip.evaluation.drawing import stacked
from unclip.evaluation.retrieval import ranks
from unclip.evaluation.statistics import mean, share
from unclip.loading import load
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness
from unclip.types import TextFeatures, finish

GUIDANCES, CANDIDATES = (1.0, 2.0, 3.0, 5.0), (1, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="model folders, or names of shipped models")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--count", type=int, default=400, help="scenes, all of which are searched")
    arguments = parser.parse_args()
    samples = Scenes(arguments.cache).batch(range(UNSEEN, UNSEEN + arguments.count))
    for name in arguments.models:
        model = load(name)
        text = model.encode_text(samples.captions)
        pictures = stacked(samples.images)
        z = torch.cat([model.encode_image(some) for some in pictures.split(250)])
        print(name, _line("text embedding", text.embedding, z), sep="\n  ")
        for guidance in GUIDANCES:
            for candidates in CANDIDATES:
                drawn = _drawn(model, text, guidance, candidates)
                print(" ", _line(f"guidance {guidance:g}, best of {candidates}", drawn, z))


def _drawn(model: UnCLIP, text: TextFeatures, guidance: float, candidates: int) -> Tensor:
    asked = GenerateOptions(prior={"guidance": guidance}, candidates=candidates)
    return finish(model.embed(text, model.complete(asked), Randomness(range(len(text)))))


def _line(what: str, drawn: Tensor, z: Tensor) -> str:
    found, cosine = share(ranks(drawn, z) < 1), mean(torch.cosine_similarity(drawn, z))
    return (
        f"{what}: right picture first of {len(z)} {found.value:.3f} ± "
        f"{found.standard_error:.3f}, cosine {cosine.value:.3f} ± {cosine.standard_error:.3f}"
    )


if __name__ == "__main__":
    main()
