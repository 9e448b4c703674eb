"""Train the evaluator: a CLIP that judges the default model and has no part in it.

    python recipes/emoji/evaluator.py --examine         # how good the one is that lies here
    python recipes/emoji/evaluator.py                   # train another; resumable
    python recipes/emoji/evaluator.py --keep            # then put it in the place of that one

It differs in architecture (a ResNet), vocabulary and seed, and knows the drawings and words
of all splits, but for a fifth of the cells of B and C, on which it is examined itself. Nothing is
trained on it, chosen or ordered by it.
"""

import argparse
import logging
import os
from pathlib import Path
from random import Random

import torch
from judge import Eyes
from rich.console import Console
from scenes import KOREAN, Scene, Scenes
from scores import examine

from unclip.checkpoint import Card, Index, load_stage, save_stage, write_index
from unclip.cli.tables import rows_table
from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.resnet import ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import Tokenizer
from unclip.data.transforms import SquareResize
from unclip.evaluation.features import load_evaluator
from unclip.randomness import derive_seed
from unclip.training.config import TrainingConfig
from unclip.training.session import train_into

FOLDER = Path(__file__).parent / "models" / "evaluator"
"""The judge of the documentation's figures, in bfloat16."""
TRAINED = Path("runs/emoji-evaluator")
CARD = Card(
    name="emoji-evaluator",
    description="Judges the emoji model; knows the drawings and words of all splits.",
    licence="Apache-2.0; trained on drawings under MIT, Apache-2.0 and CC BY, see NOTICE",
    source="trained from scratch by recipes/emoji/evaluator.py",
)
TOKENIZER_CAPTIONS = 20_000
ALONE = 0.5
"""Share of the samples that are one emoji on white: most of what it is asked about is."""

EVALUATOR = ClipConfig(
    image=ModifiedResNetConfig(size=64, layers=(1, 1, 1, 1), width=32, heads=16),
    text=TextConfig(context=40, width=128, depth=2, heads=4, vocabulary=4096),
    embedding=192,
    caption_context=40,
    loss="softmax",
    planned_batch=512,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
TRAINING = TrainingConfig(
    steps=1500,
    batch=512,
    optimizer="muon",
    lr=1.5e-3,
    betas=(0.9, 0.98),
    weight_decay=0.1,
    warmup=100,
    schedule="cosine",
    # The batch norms' statistics are of the last steps, so must be the averaged weights.
    ema_half_life=5120,
    seed=20_260,
    log_every=20,
    save_every=250,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--out", type=Path, help=f"{TRAINED}, or to examine what is kept")
    parser.add_argument("--steps", type=int, default=TRAINING.steps)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--nice", type=int, default=10)
    parser.add_argument("--examine", action="store_true", help="train nothing")
    parser.add_argument("--keep", action="store_true", help="what is trained, for evaluate.py")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.nice(arguments.nice)
    trained = arguments.out or TRAINED
    if not arguments.examine:
        train(arguments, trained)
    if arguments.keep:
        keep(trained)
    kept = arguments.keep or (arguments.examine and arguments.out is None)
    judge = FOLDER if kept else trained
    rows = examine(Eyes(load_evaluator(judge)), Scenes(arguments.cache))
    Console().print(rows_table(rows))


def train(arguments: argparse.Namespace, folder: Path) -> None:
    config = TRAINING.model_copy(update={"steps": arguments.steps})
    source = Examples(arguments.cache, size=64, seed=config.seed, everything=True)
    report = train_into(
        folder,
        build(source),
        source,
        config,
        transform=SquareResize(size=64),
        workers=arguments.workers,
        max_minutes=arguments.minutes,
    )
    logging.info("evaluator: %s after %d images", report.ending, report.images)
    logging.info("losses: %s", report.losses)


def keep(trained: Path, folder: Path = FOLDER) -> None:
    """Put an evaluator, in half the bytes, where `evaluate.py` and the studies look for it."""
    save_stage(load_stage(trained / "clip"), folder / "clip", dtype=torch.bfloat16)
    write_index(folder, Index(clip="clip", card=CARD))


class Examples(Scenes):
    """Scenes of every kind, and as many of one emoji by itself."""

    def scene(self, index: int) -> Scene:
        rng = Random(derive_seed(self.seed, "alone", index))
        if rng.random() >= ALONE:
            return super().scene(index)
        return self._plain("ko" if rng.random() < KOREAN else "en", rng, rng)


def build(
    source: Scenes, config: ClipConfig = EVALUATOR, captions: int = TOKENIZER_CAPTIONS
) -> Clip:
    """An untrained evaluator whose tokenizer is learnt from the first captions of ``source``."""
    words = source.batch(range(captions)).captions
    return Clip(config, Tokenizer.train(words, vocabulary=config.text.vocabulary))


if __name__ == "__main__":
    main()
