"""Pack a trained model for shipping: averaged weights in bfloat16, its card, its defaults.

python recipes/emoji/ship.py runs/emoji src/unclip/models/emoji
"""

import argparse
import logging
from pathlib import Path

import torch

from unclip.checkpoint import WEIGHTS, Card, load_stage, read_index, save_stage, write_index
from unclip.clip.clip import Clip
from unclip.errors import CheckpointError
from unclip.presets import preset

LIMIT = 32_000_000
CARD = Card(
    name="emoji",
    description="Emoji and icons from English and Korean prompts, drawn at 64, 256 and 1024 px.",
    licence="Apache-2.0; trained on drawings under MIT, Apache-2.0 and CC BY, see NOTICE",
    source="trained from scratch by recipes/emoji",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path, nargs="?", default=Path("runs/emoji"))
    parser.add_argument("shipped", type=Path, nargs="?", default=Path("src/unclip/models/emoji"))
    parser.add_argument("--preset", default="emoji", help="whose sampling defaults are shipped")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ship(arguments.trained, arguments.shipped, arguments.preset)


def ship(trained: Path, shipped: Path, sizes: str) -> None:
    """Copy the stages of a model folder, smaller; the index last, so that it is never half."""
    index = read_index(trained)
    total = 0
    for folder in index.folders():
        stage = load_stage(trained / folder)
        if isinstance(stage, Clip):
            stage.drop_thumbnail()
        save_stage(stage, shipped / folder, dtype=torch.bfloat16)
        size = (shipped / folder / WEIGHTS).stat().st_size
        logging.info("%-16s %5.1f MB", folder, size / 1e6)
        total += size
    if total > LIMIT:
        raise CheckpointError(f"{shipped} holds {total} bytes of weights, more than {LIMIT}")
    said = {"defaults": preset(sizes).defaults, "card": CARD}
    write_index(shipped, index.model_copy(update=said))
    logging.info("%-16s %5.1f MB", "all", total / 1e6)


if __name__ == "__main__":
    main()
