"""Train the evaluator: a CLIP that judges the default model and has no part in it.

    python recipes/emoji/evaluator.py                   # resumable by the same command

It differs in architecture (a ResNet), loss, vocabulary and seed, and knows the drawings and words
of all splits. Nothing is trained on it, chosen or ordered by it.
"""

import argparse
import logging
import os
from pathlib import Path

from scenes import Scenes

from unclip.clip.clip import Clip, ClipConfig
from unclip.clip.resnet import ModifiedResNetConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import Tokenizer
from unclip.data.transforms import SquareResize
from unclip.training.config import TrainingConfig
from unclip.training.session import train_into

FOLDER = Path("runs/emoji-evaluator")
TOKENIZER_CAPTIONS = 20_000

EVALUATOR = ClipConfig(
    image=ModifiedResNetConfig(size=64, layers=(1, 1, 1, 1), width=32, heads=16),
    text=TextConfig(context=40, width=128, depth=2, heads=4, vocabulary=4096),
    embedding=192,
    caption_context=40,
    loss="softmax",
    planned_batch=256,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
TRAINING = TrainingConfig(
    steps=1000,
    batch=256,
    lr=2e-3,
    betas=(0.9, 0.98),
    weight_decay=0.1,
    warmup=100,
    schedule="cosine",
    # The batch norms' statistics are of the last steps, so must be the averaged weights.
    ema_half_life=2560,
    seed=20_260,
    log_every=20,
    save_every=250,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=TRAINING.steps)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--nice", type=int, default=10)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.nice(arguments.nice)
    config = TRAINING.model_copy(update={"steps": arguments.steps})
    source = Scenes(arguments.cache, size=64, seed=config.seed, everything=True)
    report = train_into(
        arguments.out,
        build(source),
        source,
        config,
        transform=SquareResize(size=64),
        workers=arguments.workers,
        max_minutes=arguments.minutes,
    )
    logging.info("evaluator: %s after %d images", report.ending, report.images)
    logging.info("losses: %s", report.losses)


def build(
    source: Scenes, config: ClipConfig = EVALUATOR, captions: int = TOKENIZER_CAPTIONS
) -> Clip:
    """An untrained evaluator whose tokenizer is learnt from the first captions of ``source``."""
    words = source.batch(range(captions)).captions
    return Clip(config, Tokenizer.train(words, vocabulary=config.text.vocabulary))


if __name__ == "__main__":
    main()
