"""Our CLIP -> transformers' text and image encoder, tokenizer and image processor."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor

from unclip.clip.clip import TOKENIZER, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.tokenizer import END, START, Tokenizer
from unclip.clip.vision import ViTConfig
from unclip.storage.folders import write_json
from unclip.weights import clip_names as names
from unclip.weights.component import TRANSFORMERS, Component, LeftOut, dropped
from unclip.weights.tables import inverted
from unclip.weights.tensors import Tensors

Exported = tuple[list[Component], list[LeftOut]]
REST = dropped("network.logit_scale", "network.logit_bias")
LEGACY_END = 2
"""An end token of this id transformers takes for a default of its past, and pools at the largest id
instead. Ours trades places with the last id then, in the vocabulary and in the table."""


def clip_components(config: ClipConfig, tensors: Tensors, ends: tuple[int, int]) -> Exported:
    """The two encoders.

    Args:
        config: of our CLIP.
        tensors: its weights.
        ends: the ids of its start and its end token.
    """
    components, left = (
        [],
        [LeftOut("clip: scale and bias of the logits", "only training reads them")],
    )
    if config.normalise:
        why = "transformers' encoders do not; normalise what they return"
        left.append(LeftOut("clip: bringing embeddings to unit length", why))
    image, text = names.IMAGE, names.TEXT
    if config.text is not None:
        rules = inverted(names.TRANSFORMERS_TEXT) + REST + dropped(*_all(tensors, image))
        last = config.text.vocabulary - 1
        start, end = (_traded(token, ends[1], last) for token in ends)
        values = _text(config.text, config.embedding, start, end)

        def table(rows: Tensor) -> Tensor:
            return rows[[_traded(token, ends[1], last) for token in range(len(rows))]]

        changes = {"text_model.embeddings.token_embedding.weight": table} if end != ends[1] else {}
        components.append(Component("text_encoder", values, TRANSFORMERS, tensors, rules, changes))
    if isinstance(config.image, ViTConfig):
        rules = inverted(names.TRANSFORMERS_IMAGE) + REST + dropped(*_all(tensors, text))
        values = _image(config.image, config.embedding)
        components.append(Component("image_encoder", values, TRANSFORMERS, tensors, rules))
    elif config.image is not None:
        left.append(LeftOut("clip: image tower", "transformers' CLIP is no ResNet"))
    return components, left


def write_preprocessing(config: ClipConfig, clip: Path, dest: Path) -> None:
    """Write tokenizer and image processor.

    Args:
        config: of our CLIP.
        clip: its folder.
        dest: the pipeline's folder.
    """
    if config.text is not None:
        _write_tokenizer(clip / TOKENIZER, dest / "tokenizer", config.text)
    if config.image is None:
        return
    size = config.image.size
    crop = config.fit == "crop"
    square = {"height": size, "width": size}
    values = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size} if crop else square,
        "resample": 3,
        "do_center_crop": crop,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }
    (dest / "feature_extractor").mkdir()
    write_json(dest / "feature_extractor" / "preprocessor_config.json", values)


def _all(tensors: Tensors, prefix: str) -> list[str]:
    return [name for name in tensors if name.startswith(prefix)]


def _traded(token: int, end: int, last: int) -> int:
    """The id under which a token leaves; trading places is its own inverse."""
    if end != LEGACY_END:
        return token
    return {end: last, last: end}.get(token, token)


def _text(config: TextConfig, embedding: int, start: int, end: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPTextModelWithProjection"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
        **_tower(config, embedding),
    }


def _image(config: ViTConfig, embedding: int) -> dict[str, Any]:
    return {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "image_size": config.size,
        "patch_size": config.patch,
        **_tower(config, embedding),
    }


def _tower(config: TextConfig | ViTConfig, embedding: int) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": int(config.width * config.mlp_ratio),
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": config.activation,
        "projection_dim": embedding,
        "layer_norm_eps": 1e-5,
    }


def _write_tokenizer(ours: Path, folder: Path, config: TextConfig) -> None:
    values = json.loads(ours.read_text(encoding="utf-8"))
    end = Tokenizer.load(ours).end
    last = config.vocabulary - 1
    ids = values["model"]["vocab"]
    values["model"]["vocab"] = {word: _traded(token, end, last) for word, token in ids.items()}
    for added in values["added_tokens"]:
        added["id"] = _traded(added["id"], end, last)
    vocabulary = tokenizers.Tokenizer.from_str(json.dumps(values))
    ends = [(word, vocabulary.token_to_id(word)) for word in (START, END)]
    vocabulary.post_processor = TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    folder.mkdir(parents=True)
    vocabulary.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
        "model_max_length": config.context,
    }
    write_json(folder / "tokenizer_config.json", settings)
