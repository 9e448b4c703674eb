"""AdamW with decoupled decay on matrices alone (§1.7, §5.2), and the learning rate over time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.training.config import TrainingConfig


def decayed_names(module: nn.Module) -> set[str]:
    """Names of the parameters that are decayed: weights of linear layers and convolutions.

    Gains, biases, embeddings, positions, learned nulls and the logit scale are not (§5.2). A
    matrix is a parameter called ``weight`` with two axes or more that is no embedding's.
    """
    embeddings = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
    return {
        name
        for name, parameter in module.named_parameters()
        if name.endswith("weight") and parameter.ndim >= 2 and id(parameter) not in embeddings
    }


def build_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of ``module``, in two groups."""
    decayed = decayed_names(module)
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in _trainable(module):
        groups[name in decayed].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=all(p.device.type in ("cpu", "cuda") for p in module.parameters()),
    )


def learning_rate(config: TrainingConfig, step: int, rewarmed_at: int | None = None) -> float:
    """Learning rate of optimiser step ``step`` (from 0).

    Linear warm-up, then constant or half a cosine to zero. ``rewarmed_at`` is the step at
    which Adam's moments were lost: ``config.rewarm`` steps of a second warm-up follow it.
    """
    factor = min(1.0, (step + 1) / (config.warmup + 1))
    if config.schedule == "cosine" and step >= config.warmup:
        done = (step - config.warmup) / max(1, config.steps - config.warmup)
        factor = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    if rewarmed_at is not None:
        factor *= min(1.0, (step - rewarmed_at + 1) / (config.rewarm + 1))
    return config.lr * factor


def optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state as named tensors, such as ``exp_avg/network.exit.weight``."""
    return {
        f"{kind}/{name}": value
        for name, parameter in _trainable(module)
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    module: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave; parameters without state start afresh."""
    parameters = dict(_trainable(module))
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        if name not in parameters:
            raise CheckpointError(f"the optimiser's state has {name}, which the stage has not")
        parameter = parameters[name]
        if kind != "step" and value.shape != parameter.shape:
            raise CheckpointError(
                f"the optimiser's state for {name} has shape {tuple(value.shape)}, "
                f"the stage's {tuple(parameter.shape)}"
            )
        # A fused step walks raw memory, so the state must have the parameter's own strides.
        like = parameter.new_empty(()) if kind == "step" else torch.empty_like(parameter)
        optimizer.state[parameter][kind] = like.copy_(value).detach()


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)
