"""What open_clip's and transformers' own JSON files say of a CLIP; see `clip_shapes.Facts`.

A setting that changes results and that our towers do not have is refused by name.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from unclip.errors import CheckpointError
from unclip.weights.clip_shapes import Facts, Guessed
from unclip.weights.source import Source

ACTIVATIONS = ("gelu", "quick_gelu")
BICUBIC = 3
EPSILON = 1e-5

_OPEN_CLIP_VISION = {"image_size", "layers", "width", "head_width", "patch_size", "mlp_ratio"}
_OPEN_CLIP_TEXT = {
    *("context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"),
    *("tokenizer_kwargs", "hf_tokenizer_name", "hf_proj_type", "hf_pooler_type"),
}
_HARMLESS = {
    *("patch_dropout", "output_tokens", "eos_id", "pad_id", "pos_embed_type", "attn_drop", "drop"),
    *("timm_drop", "timm_drop_path", "act_kwargs", "norm_kwargs", "pool_type"),
}
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "pool_type": ("tok", "argmax"),
    "pos_embed_type": ("learnable",),
    "act_kwargs": ({},),
    "norm_kwargs": ({},),
}


def said_by_open_clip(source: Source, folder: str = "") -> Facts | None:
    """What open_clip_config.json says; None if there is none.

    Raises:
        CheckpointError: it describes a network that is none of ours.
    """
    file = _in(folder, "open_clip_config.json")
    if not source.has(file):
        return None
    values = source.json(file)
    model = values.get("model_cfg") or values
    pixels = values.get("preprocess_cfg") or {}
    vision, text = (dict(model.get(part) or {}) for part in ("vision_cfg", "text_cfg"))
    for tower, known in ((vision, _OPEN_CLIP_VISION), (text, _OPEN_CLIP_TEXT)):
        _refuse_unknown(source.name, tower, known)
    activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
    layers = vision.get("layers", 12)
    stated = {
        "embedding": model.get("embed_dim"),
        "image.size": vision.get("image_size"),
        "image.width": vision.get("width"),
        "text.context": text.get("context_length"),
        "text.vocabulary": text.get("vocab_size"),
        "text.width": text.get("width"),
        "text.depth": text.get("layers"),
    }
    if isinstance(layers, int):
        stated |= {"image.depth": layers, "image.patch": vision.get("patch_size")}
    return Facts(
        text_activation=activation,
        image_activation=activation,
        text_heads=text.get("heads", 8),
        head_width=vision.get("head_width", 64),
        pixels=_pixels(
            source.name,
            pixels.get("mean"),
            pixels.get("std"),
            {"shortest": "crop", "squash": "squash"}.get(pixels.get("resize_mode", "shortest")),
            pixels.get("interpolation", "bicubic") in ("bicubic", "random"),
        ),
        stated={path: value for path, value in stated.items() if isinstance(value, int)},
    )


def said_by_transformers(
    source: Source, folder: str = "", processor: str | None = None
) -> Facts | None:
    """What transformers' config.json and preprocessor_config.json say; None without the former.

    Args:
        source: where they lie.
        folder: of config.json.
        processor: the folder of the preprocessor's config, if it is another one.

    Raises:
        CheckpointError: they describe a network that is none of ours.
    """
    file = _in(folder, "config.json")
    pixels = _processor(source, folder if processor is None else processor)
    if not source.has(file):
        return Facts(usual_activation="quick_gelu", pixels=pixels) if pixels else None
    values = source.json(file)
    text, vision = _tower(values, "text"), _tower(values, "vision")
    for tower in (text, vision):
        epsilon = tower.get("layer_norm_eps", EPSILON) if tower is not None else EPSILON
        if epsilon != EPSILON:
            raise CheckpointError(f"{source.name}: LayerNorm with ε {epsilon} is not supported")
    stated = {
        "embedding": values.get("projection_dim"),
        **_stated("text", text, {"context": "max_position_embeddings", "vocabulary": "vocab_size"}),
        **_stated("image", vision, {"size": "image_size", "patch": "patch_size"}),
    }
    if not _projects(values):
        stated.pop("embedding")
    return Facts(
        text_activation=_activation(source.name, text),
        image_activation=_activation(source.name, vision),
        text_heads=(text or {}).get("num_attention_heads", 8),
        image_heads=(vision or {}).get("num_attention_heads", 12),
        usual_activation="quick_gelu",
        pixels=pixels,
        stated={path: value for path, value in stated.items() if isinstance(value, int)},
    )


def both(text: Facts | None, image: Facts | None) -> Facts | None:
    """The facts of two towers that were saved in folders of their own."""
    if text is None or image is None:
        return text or image
    return Facts(
        text_activation=text.text_activation,
        image_activation=image.image_activation,
        text_heads=text.text_heads,
        image_heads=image.image_heads,
        usual_activation=text.usual_activation,
        pixels=image.pixels,
        stated={**text.stated, **image.stated},
    )


def _in(folder: str, file: str) -> str:
    return f"{folder}/{file}" if folder else file


def _tower(values: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """A tower's own config: nested in that of a whole CLIP, or the file itself."""
    if f"{name}_config" in values or f"{name}_config_dict" in values:
        nested = (values.get(f"{name}_config") or {}, values.get(f"{name}_config_dict") or {})
        return {**nested[0], **nested[1]}  # as transformers does with old files
    return values if values.get("model_type") == f"clip_{name}_model" else None


def _projects(values: Mapping[str, Any]) -> bool:
    """Whether the network ends with a projection to ``projection_dim``."""
    architectures = values.get("architectures") or ["CLIPModel"]
    return not any(name in ("CLIPTextModel", "CLIPVisionModel") for name in architectures)


def _stated(
    tower: str, values: Mapping[str, Any] | None, more: Mapping[str, str]
) -> dict[str, Any]:
    names = {"width": "hidden_size", "depth": "num_hidden_layers", **more}
    return {f"{tower}.{ours}": (values or {}).get(theirs) for ours, theirs in names.items()}


def _activation(name: str, values: Mapping[str, Any] | None) -> str | None:
    if values is None:
        return None
    activation = values.get("hidden_act", "quick_gelu")
    if activation not in ACTIVATIONS:
        raise CheckpointError(f"{name}: activation {activation!r} is none of {ACTIVATIONS}")
    return activation


def _processor(source: Source, folder: str) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = _in(folder, name)
        values = source.json(file) if source.has(file) else {}
        values = values.get("image_processor", values)
        if "image_mean" in values:
            return _pixels(
                source.name,
                values.get("image_mean"),
                values.get("image_std"),
                "crop" if values.get("do_center_crop", True) else "squash",
                values.get("resample", BICUBIC) == BICUBIC,
            )
    return {}


def _pixels(name: str, mean: Any, std: Any, fit: str | None, bicubic: bool) -> dict[str, Any]:
    if fit is None or not bicubic:
        warnings.warn(
            f"{name} resizes images in another way than ours (bicubic, to the shortest side or "
            "squashed); embeddings of images will differ a little",
            Guessed,
            stacklevel=4,
        )
    given = {"mean": mean and tuple(mean), "std": std and tuple(std), "fit": fit}
    return {key: value for key, value in given.items() if value}


def _refuse_unknown(name: str, tower: Mapping[str, Any], known: set[str]) -> None:
    for key, value in tower.items():
        if key == "timm_model_name" and value:
            raise CheckpointError(f"{name}: its image tower is timm's {value}, which is not ours")
        if key == "hf_model_name" and value:
            raise CheckpointError(f"{name}: its text tower is {value}, which is no CLIP")
        plain = not value or value in _NEUTRAL.get(key, ()) or key in _HARMLESS - set(_NEUTRAL)
        if key not in known and not plain:
            raise CheckpointError(f"{name}: {key} = {value!r} is not supported by our towers")
