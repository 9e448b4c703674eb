"""Embeddings as files: of images and prompts, and pictures from them, wherever they come from."""

import io
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as encode_tensors
from torch import Tensor

from unclip.errors import CheckpointError, ImageError, OptionError
from unclip.images import write_new
from unclip.manipulation.inputs import Input, Item, Picture, read_input
from unclip.manipulation.latents import draw
from unclip.manipulation.made import Job, Making
from unclip.manipulation.mixing import embed_items
from unclip.manipulation.options import Decode, Fit
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP, check_prompts
from unclip.types import Step

Space = Literal["image", "text"]

KEY = "embeddings"
"""Of the tensor in a safetensors file."""


@dataclass(frozen=True)
class Embeddings:
    """Rows of numbers and what they are of."""

    values: Float[Tensor, "n d"]
    names: tuple[str, ...]
    """Files or prompts, one a row."""

    def save(self, path: Path) -> None:
        """Write a ``.safetensors`` file (with the names) or a ``.npy`` file (without).

        Raises:
            ImageError: another ending, or the file exists or cannot be written.
        """
        check_name(path)
        write_new(path, self._encoded(path.suffix.lower()))

    def _encoded(self, ending: str) -> bytes:
        if ending == ".npy":
            held = io.BytesIO()
            np.save(held, self.values.numpy())
            return held.getvalue()
        names = json.dumps(self.names, ensure_ascii=False)
        return encode_tensors({KEY: self.values.contiguous()}, metadata={"names": names})


def check_name(path: Path) -> None:
    """Refuse a file that embeddings are not written to.

    Raises:
        ImageError: another ending than .safetensors or .npy.
    """
    if path.suffix.lower() not in (".safetensors", ".npy"):
        raise ImageError(f"{path}: embeddings are written as NAME.safetensors or NAME.npy")


def embed(
    model: UnCLIP,
    items: Sequence[Item],
    *,
    space: Space = "image",
    fit: Fit = "crop",
    options: GenerateOptions | None = None,
) -> Generator[Step, None, Embeddings]:
    """Embed images and prompts.

    Args:
        model: whose CLIP (and prior) is used.
        items: images are embedded by CLIP.
        space: what becomes of prompts: ``image`` draws a z_i for each with the prior, ``text``
            takes CLIP's z_t.
        fit: what becomes of images that are not square.
        options: of the prior.

    Raises:
        OptionError: there is nothing to embed.
        ImageError: an image cannot be read.
        PromptError: a prompt is empty.
    """
    if not items:
        raise OptionError("nothing to embed; name images, folders or prompts")
    complete = model.complete(options or GenerateOptions())
    rows = []
    for start in range(0, len(items), complete.batch):
        part = items[start : start + complete.batch]
        texts = [item for item in part if isinstance(item, str)]
        if space == "text" and texts:
            check_prompts(texts)
            drawn = list(model.encode_text(texts).embedding.cpu())
            pictures = yield from _pictures(model, part, complete, fit)
            rows += [drawn.pop(0) if isinstance(item, str) else pictures.pop(0) for item in part]
        else:
            rows += list((yield from embed_items(model, part, complete, fit)))
    names = tuple(item if isinstance(item, str) else item.name for item in items)
    return Embeddings(torch.stack(rows), names)


def _pictures(
    model: UnCLIP, items: Sequence[Item], options: GenerateOptions, fit: Fit
) -> Generator[Step, None, list[Tensor]]:
    files = [item for item in items if isinstance(item, Input)]
    return list((yield from embed_items(model, files, options, fit))) if files else []


def decode(
    model: UnCLIP,
    embeddings: Picture | Input,
    *,
    how: Decode | None = None,
    options: GenerateOptions | None = None,
) -> Making:
    """Draw ``options.images`` pictures for each image embedding of a file, without a caption.

    Raises:
        ImageError: the file cannot be read.
        CheckpointError: it holds embeddings of another size.
        OptionError: a row that is not there.
    """
    how = how or Decode()
    file = read_input(embeddings)
    values = read_embeddings(file, model)
    rows = range(len(values)) if how.rows is None else how.rows
    if outside := [row for row in rows if not 0 <= row < len(values)]:
        raise OptionError(f"row {outside[0]}: {file.name} has rows 0 to {len(values) - 1}")
    complete = model.complete(options or GenerateOptions())
    cells = [(row, complete.seed + i) for row in rows for i in range(complete.images)]
    chosen, seeds = zip(*cells, strict=True)
    images = yield from draw(model, values[list(chosen)], complete, list(seeds))
    labels = [f"row {row}, seed {seed}" for row, seed in cells]
    return Job("decode", (file,), how, complete).made(model, images, labels)


def read_embeddings(file: Input, model: UnCLIP) -> Float[Tensor, "n d"]:
    """The rows of a ``.npy`` or ``.safetensors`` file; a single vector is one row.

    Raises:
        ImageError: it is neither, or holds other things than finite numbers.
        CheckpointError: the embeddings have another size than the model's.
    """
    values = _numbers(file)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) == 0:
        raise ImageError(f"{file.name}: an array [n, d] is needed, not {list(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ImageError(f"{file.name} holds NaN or infinity")
    with model.decoder.use() as decoder:
        size = decoder.config.network.embedding
    if values.shape[1] != size:
        raise CheckpointError(
            f"{file.name} holds embeddings of size {values.shape[1]}, {model.name} decodes size "
            f"{size}: it was trained with another CLIP"
        )
    return values


def _numbers(file: Input) -> Tensor:
    try:
        if file.data[:6] == b"\x93NUMPY":
            array = np.load(io.BytesIO(file.data), allow_pickle=False)
            return torch.from_numpy(array.astype(np.float32))
        tensors = read_tensors(file.data)
    except (ValueError, TypeError, EOFError, SafetensorError) as error:
        raise ImageError(f"{file.name} holds no embeddings: {error}") from None
    if KEY not in tensors and len(tensors) != 1:
        held = ", ".join(sorted(tensors))
        raise ImageError(f"{file.name}: name its tensor {KEY!r}; it has {held}")
    return tensors.get(KEY, next(iter(tensors.values()))).float()
