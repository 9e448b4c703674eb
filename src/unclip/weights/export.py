"""`unclip export`: a model in the folders of a diffusers pipeline, and what does not fit there."""

from pathlib import Path

from unclip.checkpoint import WEIGHTS, is_stage, read_config, read_index, replacing
from unclip.clip.clip import TOKENIZER, ClipConfig
from unclip.clip.tokenizer import Tokenizer
from unclip.codec.codec import CodecConfig
from unclip.decoder.decoder import DecoderConfig
from unclip.errors import CheckpointError
from unclip.weights.component import Component, LeftOut, write_component
from unclip.weights.export_clip import clip_components, write_preprocessing
from unclip.weights.export_stages import codec_component, decoder_components, prior_component
from unclip.weights.tensors import open_tensors


def export_model(model: Path, dest: Path) -> tuple[list[str], list[LeftOut]]:
    """Write what diffusers and transformers can hold of a model.

    Tensors are written one by one as they are stored; only where we scale a layer's input and they
    do not, the factor moves into its weight.

    Args:
        model: a model or stage folder of ours.
        dest: the folder to write; it must not exist.

    Returns:
        The folders written, and what was left out and why.

    Raises:
        CheckpointError: the model is damaged, nothing of it fits, or ``dest`` exists or cannot be
            written. Nothing is left half-written.
    """
    model, dest = Path(model), Path(dest)
    if dest.exists():
        raise CheckpointError(f"{dest} exists and is never overwritten; choose another name")
    components: list[Component] = []
    left: list[LeftOut] = []
    clip: tuple[ClipConfig, Path] | None = None
    names = read_index(model).folders() if not is_stage(model) else [""]
    for folder in (model / name for name in names):
        found, missing = _exported(folder)
        components += found
        left += missing
        _, config = read_config(folder)
        if isinstance(config, ClipConfig):
            clip = (config, folder)
    if not components:
        reasons = "; ".join(f"{one.what}: {one.why}" for one in left)
        raise CheckpointError(f"{model}: nothing of it fits into diffusers ({reasons})")
    with replacing(dest) as beside:
        for component in components:
            write_component(component, beside)
        if clip is not None:
            write_preprocessing(*clip, beside)
    return [component.name for component in components], left


def _exported(folder: Path) -> tuple[list[Component], list[LeftOut]]:
    stage, config = read_config(folder)
    tensors = open_tensors([folder / WEIGHTS])
    if isinstance(config, ClipConfig):
        ends = (0, 0)
        if config.text is not None:
            tokenizer = Tokenizer.load(folder / TOKENIZER)
            ends = (tokenizer.start, tokenizer.end)
        return clip_components(config, tensors, ends)
    if isinstance(config, DecoderConfig):
        return decoder_components(config, tensors)
    if isinstance(config, CodecConfig):
        return codec_component(config, tensors)
    if stage == "prior":
        return prior_component(config, tensors)
    why = "diffusers' only pipeline with such a stage, UnCLIPPipeline, is no longer maintained"
    return [], [LeftOut(folder.name, why)]
