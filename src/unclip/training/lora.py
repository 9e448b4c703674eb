"""Fine-tuning by LoRA (arXiv 2106.09685): two thin matrices beside each frozen linear layer.

Built on peft, whose file layout adapters are saved in; see `unclip.adapter` for merging them.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from unclip.adapter import ADAPTER, ADAPTER_CONFIG, BASE, PREFIX, Base
from unclip.checkpoint import replacing
from unclip.errors import OptionError
from unclip.identity import fingerprint
from unclip.storage.folders import write_json


def add_adapter(stage: nn.Module, rank: int, alpha: float | None = None) -> None:
    """Freeze ``stage`` and put a trainable adapter beside every linear layer, in place.

    It changes nothing until it is trained. Optimiser state, averages and checkpoints then are
    those of the adapter alone.

    Args:
        stage: with its trained weights.
        rank: of the change to each weight; 4 to 64 are usual.
        alpha: its size; the change is scaled by alpha/rank. The rank if not given.

    Raises:
        OptionError: peft is not installed, or the rank is not positive.
    """
    if rank < 1:
        raise OptionError(f"the rank of an adapter must be 1 or more, not {rank}")
    peft = _peft()
    base = Base(stage=str(stage.name), fingerprint=fingerprint(stage.state_dict().items()))
    linear = [name for name, module in stage.named_modules() if type(module) is nn.Linear]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha or rank, target_modules=linear)
    peft.inject_adapter_in_model(config, stage)
    stage.adapter_base = base  # type: ignore[assignment]
    stage.adapter_config = config


def base_of(stage: nn.Module) -> Base | None:
    """What the adapter of ``stage`` is trained on; None if it has no adapter."""
    return getattr(stage, "adapter_base", None)


def save_adapter(stage: Any, folder: Path) -> None:
    """Write the adapter of ``stage``, and what it belongs to, in peft's layout.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    tensors = {
        PREFIX + key.replace(".default.", "."): value.detach().to("cpu", copy=True).contiguous()
        for key, value in stage.state_dict().items()
        if ".lora_A." in key or ".lora_B." in key
    }
    values = stage.adapter_config.to_dict()
    plain = {
        name: sorted(value) if isinstance(value, set) else value for name, value in values.items()
    }
    with replacing(Path(folder)) as beside:
        save_file(tensors, beside / ADAPTER, {"format": "pt"})
        write_json(beside / ADAPTER_CONFIG, plain)
        write_json(beside / BASE, stage.adapter_base.model_dump())


@torch.no_grad()
def lower_frozen(stage: nn.Module, dtype: torch.dtype) -> None:
    """Keep the frozen matrices of linear layers and convolutions in ``dtype``.

    It is what autocast turns them into at every use: only memory changes.
    """
    for module in stage.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(dtype)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise OptionError("adapters need peft: pip install 'unclip[lora]'") from None
    return peft
