"""A stage or a whole pipeline as a folder of JSON and safetensors, read strictly.

model/unclip.json          which stage lies where, sampling defaults, the model's card
model/clip/config.json     the stage's name and config
model/clip/weights.safetensors, and what else a stage keeps (CLIP: tokenizer.json)
"""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor, nn

from unclip.clip.clip import TOKENIZER, Clip, ClipConfig
from unclip.codec.codec import Codec, CodecConfig
from unclip.config import Config
from unclip.decoder.decoder import Decoder, DecoderConfig
from unclip.errors import CheckpointError, OptionError
from unclip.identity import Space, check_one_space
from unclip.options import GenerateOptions
from unclip.pipeline import Latents, Slot, UnCLIP
from unclip.prior.kinds import build_prior, parse_prior
from unclip.runtime import Runtime, choose_runtime, place
from unclip.storage.content import digest_of
from unclip.storage.folders import flush, read_json, recover, replacing, write_json, writing
from unclip.storage.memory import given_back_when_freed
from unclip.storage.safetensors import read_safetensors
from unclip.storage.streaming import check_file, fill, without_memory
from unclip.storage.turns import take_turns
from unclip.upsampler.upsampler import Pair, Upsampler, UpsamplerConfig

FORMAT = 1
CONFIG, WEIGHTS, INDEX = "config.json", "weights.safetensors", "unclip.json"
CARD = "card.json"

STAGES: dict[str, tuple[Callable[[Any], nn.Module], Callable[..., Config]]] = {
    "clip": (Clip.from_config, ClipConfig.parse),
    "prior": (build_prior, parse_prior),
    "decoder": (Decoder, DecoderConfig.parse),
    "upsampler": (Upsampler, UpsamplerConfig.parse),
    "codec": (Codec, CodecConfig.parse),
}
"""How a stage is built of its config, and its config of plain values."""

Residency = Literal["auto", "all", "one"]
"""Keep every stage in memory once used, or only the one that is working; ``auto`` keeps all of a
small model."""
SMALL = 2**31
"""Bytes of weights up to which ``auto`` keeps every stage."""


class Card(Config):
    """What `unclip info` says about where a model comes from."""

    name: str = "unnamed"
    description: str = ""
    licence: str = "unknown"
    source: str = ""
    """Where an imported model comes from: a Hub name, a file or a folder."""
    revision: str = ""
    """Its commit on the Hub."""
    family: str = ""
    """Which kind of published checkpoint it was."""
    reference: str = ""
    """Whose behaviour it follows: the authors' code or its diffusers port."""


class Index(Config):
    """The content of unclip.json: folders are relative to it."""

    format: Literal[1] = 1
    clip: str | None = None
    """None, as for prior and decoder: the model has none. Without a prior it still varies
    images."""
    prior: str | None = None
    decoder: str | None = None
    codec: str | None = None
    """What makes pixels of a decoder's latents."""
    upsamplers: dict[int, str] = Field({}, description="By the size each draws.")
    defaults: GenerateOptions = GenerateOptions()
    card: Card = Card()

    def folders(self) -> list[str]:
        """Of the stages that are there, in the order in which they work."""
        stages = (self.clip, self.prior, self.decoder, self.codec, *self.upsamplers.values())
        return [name for name in stages if name is not None]

    def naming(self, folder: str) -> "Index":
        """The index with one more stage in a folder of its name (``upsampler-256``)."""
        if not folder.startswith("upsampler-"):
            return self.model_copy(update={folder: folder})
        sizes = {**self.upsamplers, int(folder.split("-")[1]): folder}
        return self.model_copy(update={"upsamplers": dict(sorted(sizes.items()))})

    def present(self, model: Path) -> "Index":
        """The index without CLIP, prior or decoder that it names and ``model`` does not hold."""
        named = {stage: getattr(self, stage) for stage in ("clip", "prior", "decoder")}
        absent = {stage for stage, name in named.items() if name and not _is_there(model / name)}
        return self.model_copy(update=dict.fromkeys(absent))


def save_stage(
    stage: Any,
    folder: Path,
    *,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a stage into ``folder``, replacing what was there once all is written.

    Args:
        stage: any stage of the contract in `unclip.types`.
        folder: where; its parents are made.
        weights: to be written instead of the stage's own, such as an average (EMA).
        dtype: what parameters are stored as; as they are if not given. Buffers, which hold
            measured figures, always stay as they are.

    Raises:
        CheckpointError: the folder cannot be written (no space, no permission).
    """
    with replacing(Path(folder)) as beside:
        # Scalars cost nothing, and CLIP's logit scale is a logarithm.
        named = stage.named_parameters(remove_duplicate=False)
        lowered = {name for name, parameter in named if parameter.ndim}
        state = {
            key: _stored(value, dtype if key in lowered else None)
            for key, value in (weights or stage.state_dict()).items()
        }
        config = stage.config
        if isinstance(stage, Clip):
            identity = config.identified(state.items())
            config = config.model_copy(update={"identity": identity})
        write_config(beside, stage.name, config)
        save_file(state, beside / WEIGHTS)
        if hasattr(stage, "save_extras"):
            stage.save_extras(beside)


def load_stage(folder: Path, runtime: Runtime | None = None, *, in_turns: bool = False) -> Any:
    """Build the stage a folder describes and read its weights.

    With a ``runtime`` the stage is placed for inference; without, it stays as stored, in
    float32 on the CPU, for training. Of networks that work one after another, ``in_turns`` keeps
    only the one at work in memory, unless they are to be compiled.

    Raises:
        CheckpointError: something is missing, damaged or of another structure; it is named.
    """
    folder = Path(folder)
    name, config = read_config(folder)
    with given_back_when_freed():
        with without_memory():
            stage = Clip.from_config(config, folder) if name == "clip" else STAGES[name][0](config)
        if runtime is None:
            fill(stage, folder / WEIGHTS)
            return stage.requires_grad_(True)
        stage.eval().requires_grad_(False)
        network = getattr(stage, "network", None)
        if in_turns and isinstance(network, Pair) and not runtime.compile:
            check_file(stage.state_dict(), folder / WEIGHTS)
            take_turns(network, partial(_load_part, folder / WEIGHTS, runtime))
            return stage
        fill(stage, folder / WEIGHTS, runtime.dtype, runtime.device, runtime.memory_format)
        return place(stage, runtime)


def _load_part(file: Path, runtime: Runtime, name: str, part: nn.Module) -> None:
    """Load one network of a pair."""
    with given_back_when_freed():
        layout = runtime.memory_format
        fill(part, file, runtime.dtype, runtime.device, layout, prefix=f"network.{name}.")
        place(part, runtime)


def write_config(folder: Path, stage: str, config: Config) -> None:
    """Write the name and config of a stage into its folder, beside which its weights will lie."""
    values = {"format": FORMAT, "stage": stage, "config": config.model_dump(mode="json")}
    write_json(folder / CONFIG, values)


def read_config(folder: Path) -> tuple[str, Any]:
    """The name and config of the stage in ``folder``."""
    recover(Path(folder))
    path = Path(folder) / CONFIG
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {values.get('format')} is not known; "
            f"this version of unclip reads format {FORMAT}"
        )
    name = values.get("stage")
    if not isinstance(name, str) or name not in STAGES:
        raise CheckpointError(f"{path}: stage {name!r} is none of {', '.join(STAGES)}")
    config = values.get("config")
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: the stage's config is missing")
    try:
        return name, STAGES[name][1](config, source=str(path))
    except OptionError as error:
        raise CheckpointError(str(error)) from None


def save_pipeline(
    folder: Path,
    stages: Mapping[str, nn.Module],
    *,
    defaults: GenerateOptions,
    card: Card,
    dtype: torch.dtype | None = None,
) -> None:
    """Write stages named as in the index (``upsampler-256`` for one that draws 256 px)."""
    folder = Path(folder)
    for name, stage in stages.items():
        save_stage(stage, folder / name, dtype=dtype)
    index = Index(defaults=defaults, card=card)
    for name in stages:
        index = index.naming(name)
    write_index(folder, index)


def write_index(folder: Path, index: Index) -> None:
    """Write unclip.json, which makes a folder of stages a model.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    values = index.model_dump(mode="json")
    values["defaults"] = index.defaults.model_dump(mode="json", exclude_unset=True)
    folder = Path(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / INDEX, values)
        flush(folder)


def write_card(folder: Path, card: Card) -> None:
    """Write the card of a stage that is part of no model, such as an imported CLIP."""
    write_json(folder / CARD, card.model_dump(mode="json"))


def read_card(folder: Path) -> Card:
    """The card of a stage folder; an empty one if it has none."""
    path = Path(folder) / CARD
    return Card.parse(read_json(path), source=str(path)) if path.is_file() else Card()


def is_stage(folder: Path) -> bool:
    """Whether ``folder`` looks like one of ours with a stage in it."""
    return (Path(folder) / CONFIG).is_file() and (Path(folder) / WEIGHTS).is_file()


def read_index(folder: Path) -> Index:
    """Read unclip.json strictly."""
    path = Path(folder) / INDEX
    try:
        return Index.parse(read_json(path), source=str(path))
    except OptionError as error:
        raise CheckpointError(str(error)) from None


def load_pipeline(
    folder: Path, runtime: Runtime | None = None, residency: Residency = "auto"
) -> UnCLIP:
    """A model folder as a pipeline. Configs are checked now, weights read when first needed.

    Raises:
        CheckpointError: the folder is no model, or a part of it is missing or damaged.
    """
    folder = Path(folder)
    runtime = runtime or choose_runtime()
    index = read_index(folder)
    for stage in ("clip", "decoder", "prior"):
        _check_there(folder, stage, getattr(index, stage))
    clip = _expected(folder / str(index.clip), "clip")
    prior = _expected(folder / index.prior, "prior") if index.prior else None
    decoder = _expected(folder / str(index.decoder), "decoder")
    readers = {"decoder": decoder} if prior is None else {"prior": prior, "decoder": decoder}
    spaces = {name: Space(read.network.embedding, read.clip) for name, read in readers.items()}
    check_one_space(str(folder), Space(clip.embedding, clip.identity), spaces)
    codec = _codec_of(folder, index, decoder)
    size = pixels = decoder.size * (codec.network.factor if codec else 1)
    for high, name in sorted(index.upsamplers.items()):
        config = _expected(folder / name, "upsampler")
        if (config.low, config.high) != (size, high):
            raise CheckpointError(
                f"{folder / name} enlarges {config.low} to {config.high} px, but {size} to {high} "
                "px is needed here; train an upsampler for that step"
            )
        size = high

    if residency == "auto":
        numbers = sum(count_parameters(folder / name) for name in index.folders())
        residency = "all" if numbers * runtime.dtype.itemsize <= SMALL else "one"

    def slot(name: str | None) -> Slot[Any]:
        keep = residency == "all"
        load = partial(load_stage, folder / str(name), runtime, in_turns=not keep)
        return Slot(load, keep=keep)

    latents = None
    if codec is not None:
        factor = codec.network.factor
        latents = Latents(slot(index.codec), factor, factor * decoder.network.unet.stride)
    return UnCLIP(
        slot(index.clip),
        slot(index.prior) if index.prior else None,
        slot(index.decoder),
        {size: slot(name) for size, name in index.upsamplers.items()},
        size=pixels,
        defaults=index.defaults,
        name=index.card.name,
        fingerprint=lambda: fingerprint(folder, index),
        runtime=runtime,
        latents=latents,
    )


def _check_there(folder: Path, stage: str, name: str | None) -> None:
    """A model needs a CLIP and a decoder to draw; one without a prior still varies images."""
    if _is_there(folder / name) if name else stage == "prior":
        return
    lacking = f"{folder / name} does not exist" if name else f"{folder} has no {stage} yet"
    ways = [f"train one with `unclip train {stage} DATA -o {folder}`"] if stage != "clip" else []
    other = f"another of the same CLIP that has one: `unclip import OTHER+{folder} DEST`"
    raise CheckpointError(f"{lacking}: {', or '.join([*ways, f'join the model with {other}'])}")


def _is_there(folder: Path) -> bool:
    recover(folder)
    return folder.is_dir()


def _codec_of(folder: Path, index: Index, decoder: DecoderConfig) -> CodecConfig | None:
    """The config of the codec, which there must be if, and only if, the decoder draws latents."""
    codec: CodecConfig | None = _expected(folder / index.codec, "codec") if index.codec else None
    channels = codec.network.latents if codec else 3
    if decoder.channels != channels:
        raise CheckpointError(
            f"{folder}: the decoder draws {decoder.channels} channels, its "
            f"{'codec reads' if codec else 'pictures have'} {channels}; a decoder of latents needs "
            "the codec it was trained with"
        )
    return codec


def _expected(folder: Path, expected: str) -> Any:
    """The config in ``folder``, which must be of the ``expected`` stage."""
    stage, config = read_config(folder)
    if stage != expected:
        raise CheckpointError(f"{folder} holds a {stage}, where the {expected} is expected")
    return config


def fingerprint(folder: Path, index: Index) -> str:
    """Twelve hexadecimal digits that change when a config, weights or the vocabulary do.

    Small files are read whole. Of large ones the header is read and, spread over each tensor,
    some of its content; any training changes that.

    Raises:
        CheckpointError: one of them is missing or damaged.
    """
    digest = hashlib.sha256()
    files = [folder / name / file for name in index.folders() for file in (CONFIG, WEIGHTS)]
    if index.clip is not None and (vocabulary := folder / index.clip / TOKENIZER).is_file():
        files.append(vocabulary)
    for file in files:
        digest.update(digest_of(file))
    return digest.hexdigest()[:12]


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of a stage folder, by its header alone."""
    return sum(prod(entry.shape) for entry in read_safetensors(folder / WEIGHTS).values())


def _stored(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    # safetensors refuses channels_last, and tensors that share memory.
    return (
        value.detach().to("cpu", dtype or value.dtype).clone(memory_format=torch.contiguous_format)
    )
