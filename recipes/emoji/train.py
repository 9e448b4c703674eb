"""Train every stage of the default model on the scenes that `build.py` packed.

    python recipes/emoji/train.py                       # all stages, resumable by the same command
    python recipes/emoji/train.py --stages clip prior   # some of them
    python recipes/emoji/train.py --stages text         # CLIP learns the words of a dictionary
    python recipes/emoji/train.py --minutes 60          # stop cleanly after an hour
    python recipes/emoji/train.py --start src/unclip/models/emoji --seed 1   # train it further

The result is a model folder (default runs/emoji) that `unclip generate --model` opens.
"""

import argparse
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from alike import Alike
from reading import READING, teach
from redrawing import Redrawing
from scenes import Scenes
from thumbnails import begin_with_thumbnails
from torch import nn

from unclip.checkpoint import INDEX, Card, Index, load_stage, read_index, write_index
from unclip.clip.clip import Clip, ClipConfig
from unclip.data.transforms import SquareResize
from unclip.decoder.decoder import Decoder
from unclip.evaluation.drawing import stacked
from unclip.presets import Preset, preset
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.runtime import choose_runtime
from unclip.training.objectives import own_loss
from unclip.training.session import folder_of, frozen, tokenizer_for, train_into
from unclip.upsampler.upsampler import Upsampler

STAGES = ("clip", "text", "decoder", "upsampler-256", "prior", "upsampler-1024")
SIZES = {"cpu": "emoji", "gpu": "emoji-gpu"}
TOKENIZER_CAPTIONS = 30_000
SMALLER = "upsampler-256"
"""What the upsampler to 1024 begins as: edges look alike at any size. It takes the outer level."""
TAUGHT = Path("training", "text")
"""Where the text tower learns a dictionary. Training CLIP further would undo that."""
MEASURED = 2048
"""Scenes whose thumbnails say what a decoder's layout begins with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--out", type=Path, default=Path("runs/emoji"))
    parser.add_argument("--size", choices=SIZES, default="cpu")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--minutes", type=float, default=None, help="budget of all stages")
    parser.add_argument("--start", type=Path, help="a model to continue from, such as the shipped")
    parser.add_argument("--seed", type=int, help="of scenes and noise, the preset's own if unset")
    parser.add_argument("--steps", type=int, help="of each stage, the preset's own if unset")
    parser.add_argument("--lr", type=float, help="highest learning rate, the preset's if unset")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--nice", type=int, default=10)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.nice(arguments.nice)
    sizes = preset(SIZES[arguments.size])
    if arguments.start:
        bring(arguments.start, arguments.out, arguments.stages, sizes)
    end = None if arguments.minutes is None else time.monotonic() + 60 * arguments.minutes
    for name in arguments.stages:
        left = None if end is None else (end - time.monotonic()) / 60
        if left is not None and left <= 0:
            break
        train_stage(name, sizes, arguments, left)


def bring(start: Path, out: Path, trained: Sequence[str], sizes: Preset) -> None:
    """Copy the stages of ``start`` that are not trained, and that ``out`` does not have yet."""
    own = (out / INDEX).exists()
    index = read_index(out) if own else Index(defaults=sizes.defaults, card=Card(name=out.name))
    for folder in read_index(start).folders():
        if folder not in trained and not (out / folder).exists():
            shutil.copytree(start / folder, out / folder)
            index = index.naming(folder)
            write_index(out, index)


def train_stage(
    name: str, sizes: Preset, arguments: argparse.Namespace, minutes: float | None
) -> None:
    """Train one stage, or continue to; CLIP first, since prior and decoder stand on it."""
    asked = {key: getattr(arguments, key) for key in ("seed", "steps", "lr")}
    preset_ = READING if name == "text" else sizes.training[name]
    config = preset_.updated({k: v for k, v in asked.items() if v is not None})
    kind, _, size = name.partition("-")
    out = arguments.out
    if kind == "clip" and (out / TAUGHT).exists():
        logging.info("clip: left as it is, %s taught it; remove that to train it", out / TAUGHT)
        return
    if kind == "text":
        teach(out / "clip", out / TAUGHT, arguments.cache, config, minutes)
        return
    source = scenes_for(kind, arguments.cache, int(size) if size else 64, config.seed)
    clip = frozen(out / "clip") if kind in ("prior", "decoder") else None
    match kind:
        case "clip":
            stage = _clip(sizes.clip, source, arguments)
        case "prior":
            stage = DiffusionPrior(sizes.prior(clip.config))
        case "decoder":
            stage = _decoder(sizes, clip, source, out / "clip")
        case _:
            stage = Upsampler(sizes.upsamplers[int(size)])
    if arguments.start:
        go_on(stage, arguments.start / name)
    elif name == "upsampler-1024" and (out / SMALLER).exists():
        go_on(stage, out / SMALLER)
    logging.info("training %s: %s", folder_of(stage), config)
    mended = name == SMALLER and (out / "decoder").exists()
    report = train_into(
        out,
        stage,
        source,
        config,
        clip=clip,
        # Scenes come in the right size. Upsamplers cut crops; `Redrawing` cuts its own.
        transform="auto" if kind == "upsampler" and not mended else SquareResize(size=source.size),
        objective=_redrawing(out, sizes) if mended else own_loss,
        defaults=sizes.defaults,
        workers=arguments.workers,
        max_minutes=minutes,
    )
    logging.info("%s: %s after %d images", name, report.ending, report.images)


def _redrawing(out: Path, sizes: Preset) -> Redrawing:
    """What the upsampler to 256 px learns: to mend pictures of the decoder in ``out``."""
    assert sizes.defaults.decoder is not None
    return Redrawing(
        frozen(out / "clip"), load_stage(out / "decoder", choose_runtime()), sizes.defaults.decoder
    )


def scenes_for(kind: str, cache: Path, size: int, seed: int) -> Scenes:
    """What a stage is trained on; prior and decoder meet words of the dictionary, too."""
    if kind == "clip":
        return Alike(cache, size, seed)
    return Scenes(cache, size, seed, dictionary=kind in ("prior", "decoder"))


def go_on(stage: nn.Module, folder: Path) -> None:
    """Take over the weights in ``folder`` that fit, though they stood on another CLIP.

    What has no weights there, or of other shapes, begins as in a new stage: CLIP's head for
    thumbnails, which does not ship, and a layout of another size.
    """
    own, old = stage.state_dict(), load_stage(folder).state_dict()
    fitting = {k: v for k, v in old.items() if k in own and v.shape == own[k].shape}
    stage.load_state_dict(fitting, strict=False)


def _clip(config: ClipConfig, source: Scenes, arguments: argparse.Namespace) -> Clip:
    """An untrained CLIP, with the tokenizer of the one it is to go on from."""
    if arguments.start:
        return Clip(config, load_stage(arguments.start / "clip").tokenizer)
    size = config.text_tower().vocabulary
    return Clip(
        config,
        tokenizer_for(
            arguments.out, lambda: source.batch(range(TOKENIZER_CAPTIONS)).captions, size
        ),
    )


def _decoder(sizes: Preset, clip: Clip, source: Scenes, folder: Path) -> Decoder:
    """An untrained decoder, but for what the head for thumbnails of CLIP in ``folder`` knows."""
    decoder = Decoder(sizes.decoder(clip.config))
    guidance, head = decoder.network.image, load_stage(folder).network.thumbnail
    if head is not None:
        pictures = stacked(source.batch(range(MEASURED)).images)
        z = torch.cat([clip.encode_image(some) for some in pictures.split(256)])
        begin_with_thumbnails(guidance.layout, guidance.scale, head, z)
    return decoder


if __name__ == "__main__":
    main()
