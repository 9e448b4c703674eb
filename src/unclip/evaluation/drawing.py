"""Pictures for captions, kept as they are drawn, so that an interrupted evaluation goes on.

Every picture has its own seed, derived from its key: how many are drawn together changes nothing.
"""

import hashlib
import json
from collections.abc import Generator, Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import unclip
from unclip.errors import OptionError
from unclip.images import save_png, to_pil
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import Randomness, derive_seed
from unclip.types import Sampling, Step

PICTURES = "pictures"
"""Name of the progress bar that counts whole pictures."""
_ABOUT = "about.json"


def draw(
    model: UnCLIP,
    captions: Sequence[str],
    keys: Sequence[str],
    options: GenerateOptions,
    seed: int = 0,
    image_embedding: Float[Tensor, "b d"] | None = None,
) -> Sampling:
    """Draw one batch of pictures [b 3 h w], each with the seed its key gives it.

    Args:
        model: draws.
        captions: what to draw.
        keys: names of the pictures.
        options: complete ones, see `GenerateOptions.over`.
        seed: of all pictures together.
        image_embedding: leaves the prior out and gives the decoder these.
    """
    randomness = Randomness([derive_seed(seed, key) for key in keys])
    text = model.encode_text(captions)
    if image_embedding is None:
        image_embedding = yield from model.embed(text, options, randomness)
    return (yield from model.decode(image_embedding, text, options, randomness))


def draw_into(
    folder: Path,
    model: UnCLIP,
    captions: Sequence[str],
    keys: Sequence[str],
    options: GenerateOptions,
    seed: int = 0,
) -> Generator[Step, None, list[Path]]:
    """Draw a picture for every caption into PNG files, leaving out those that are there.

    Returns:
        The files, in the order of the captions.

    Raises:
        OptionError: the folder holds pictures of another model, of other captions or options.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check(folder, model, captions, options, seed)
    files = [folder / f"{number:06d}.png" for number in range(len(captions))]
    missing = [i for i, file in enumerate(files) if not file.exists()]
    for start in range(0, len(missing), options.batch):
        part = missing[start : start + options.batch]
        words, names = [captions[i] for i in part], [keys[i] for i in part]
        images = yield from draw(model, words, names, options, seed)
        for i, image in zip(part, images, strict=True):
            recipe = {
                "software": f"unclip {unclip.__version__}",
                "command": "evaluate",
                "model": model.name,
                "fingerprint": model.fingerprint,
                "prompt": captions[i],
            }
            save_png(to_pil(image), files[i], recipe)
        done = len(files) - len(missing) + start + len(part)
        yield Step(PICTURES, done - 1, len(files), images, images)
    return files


def pixels(images: Float[Tensor, "b 3 h w"]) -> np.ndarray:
    """Pictures in [-1, 1] as those of 8 bits they are saved as: uint8 [b h w 3]."""
    return np.stack([np.asarray(to_pil(image)) for image in images])


def side_by_side(pictures: Sequence[Iterable[np.ndarray]], shown: int) -> list[Image.Image]:
    """Cells of a sheet: the same question answered in turn by each kind of picture."""
    together = islice(zip(*pictures, strict=False), shown)
    return [Image.fromarray(np.concatenate(cell, axis=1)) for cell in together]


def _check(
    folder: Path, model: UnCLIP, captions: Sequence[str], options: GenerateOptions, seed: int
) -> None:
    asked = options.model_dump(mode="json", exclude={"images", "seed", "batch"})
    words = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    about = {"model": model.fingerprint, "captions": words, "options": asked, "seed": seed}
    path = folder / _ABOUT
    text = json.dumps(about, indent=1)
    if not path.exists():
        beside = path.with_name(f".{_ABOUT}.part")
        beside.write_text(text)
        beside.replace(path)
    elif path.read_text() != text:
        raise OptionError(
            f"{folder} holds pictures of another model, or of other captions, options or seed; "
            "choose another folder, or delete this one"
        )


def stacked(pictures: Iterable[np.ndarray]) -> Float[Tensor, "n 3 h w"]:
    """8-bit pictures of one size as a tensor in [-1, 1]."""
    array = torch.from_numpy(np.stack(list(pictures)))
    return array.movedim(-1, 1).float().div_(127.5).sub_(1)
