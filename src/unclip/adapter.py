"""A LoRA adapter (arXiv 2106.09685) in peft's file layout, added to the weights it was trained on.

Merging needs no peft; `unclip.training.lora` trains adapters with it. Knows no stage.
"""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unclip.config import Config
from unclip.errors import CheckpointError, OptionError
from unclip.identity import fingerprint

ADAPTER, ADAPTER_CONFIG, BASE = "adapter_model.safetensors", "adapter_config.json", "base.json"
PREFIX = "base_model.model."
"""What peft puts before the names of a model's modules."""
PLAIN = {"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False}
"""The kind of adapter that merges here; anything else peft can train needs peft to merge."""


class Base(Config):
    """What an adapter was trained on."""

    stage: str
    fingerprint: str
    """Of the stage's weights before, see `unclip.identity.fingerprint`."""


@torch.no_grad()
def merge(stage: nn.Module, folder: Path | str) -> None:
    """Add the adapter in ``folder`` to the weights of ``stage``, in place.

    Raises:
        CheckpointError: the adapter is missing, damaged, of a kind that cannot be merged here, or
            was trained on other weights.
    """
    folder = Path(folder)
    config, base = _read(folder)
    if base.stage != stage.name:
        raise CheckpointError(f"{folder} is an adapter for a {base.stage}, not for a {stage.name}")
    if fingerprint(stage.state_dict().items()) != base.fingerprint:
        raise CheckpointError(
            f"{folder} was trained on other weights than this {stage.name}'s; "
            "merge it into the stage it was trained on"
        )
    try:
        tensors = load_file(folder / ADAPTER)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder / ADAPTER} cannot be read: {error}") from None
    weights = dict(stage.named_parameters())
    scale = config["lora_alpha"] / config["r"] ** (0.5 if config.get("use_rslora") else 1)
    down = {key: value for key, value in tensors.items() if key.endswith(".lora_A.weight")}
    if 2 * len(down) != len(tensors):
        raise CheckpointError(
            f"{folder / ADAPTER} holds more than pairs of matrices; merge it by peft"
        )
    for key, a in down.items():
        b = tensors.get(key.replace(".lora_A.", ".lora_B."))
        name = key.removeprefix(PREFIX).replace(".lora_A.", ".")
        weight = weights.get(name)
        if b is None or weight is None or not _fit(weight, a, b):
            raise CheckpointError(f"{folder / ADAPTER}: {key} does not fit the {stage.name}")
        weight.add_((scale * (b.float() @ a.float())).to(weight.device, weight.dtype))


def _fit(weight: Tensor, a: Tensor, b: Tensor) -> bool:
    matrices = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1]
    return matrices and weight.shape == (b.shape[0], a.shape[1])


def _read(folder: Path) -> tuple[dict, Base]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        base = Base.parse(json.loads((folder / BASE).read_text(encoding="utf-8")), source=BASE)
    except (OSError, ValueError, OptionError) as error:
        raise CheckpointError(f"{folder} is no adapter folder: {error}") from None
    for field, value in PLAIN.items():
        if config.get(field, value) != value:
            raise CheckpointError(
                f"{folder / ADAPTER_CONFIG}: {field} {config[field]!r} cannot be merged here; "
                "merge it by peft"
            )
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        raise CheckpointError(f"{folder / ADAPTER_CONFIG}: ranks differ; merge it by peft")
    return config, base
