"""The optimisers, decaying matrices alone (§1.7, §5.2), and the learning rate over time."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from unclip.errors import CheckpointError
from unclip.training.config import TrainingConfig
from unclip.training.muon import Muon

_STATE: dict[type, set[str]] = {
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
    torch.optim.Adafactor: {"step", "row_var", "col_var", "variance"},
}
_MUON = {True: {"momentum"}, False: _STATE[torch.optim.AdamW]}
"""By whether a group's updates are made orthogonal."""


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


def build_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the trainable parameters of ``module``, in two groups."""
    decayed = decayed_names(module)
    groups: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, parameter in _trainable(module):
        groups[name in decayed].append(parameter)
    decay = {True: config.weight_decay, False: 0.0}
    both = [{"params": groups[kind], "weight_decay": decay[kind]} for kind in (True, False)]
    both = [group for group in both if group["params"]]
    if config.optimizer == "muon":
        for group in both:
            group["orthogonal"] = group["params"] is groups[True]
        return Muon(both, lr=config.lr, betas=config.betas, eps=config.eps)
    if config.optimizer == "adafactor":
        # One tensor at a time: several at once would need memory for all of them.
        return torch.optim.Adafactor(both, lr=config.lr, foreach=False)
    return torch.optim.AdamW(
        both,
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
    """The optimiser's state as named tensors, such as ``exp_avg/network.exit.weight``."""
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
    kept = _kept(optimizer)
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        if name in parameters and kind not in kept[parameters[name]]:
            raise CheckpointError(
                f"the optimiser's state has {kind} of {name}, which {type(optimizer).__name__} "
                "does not keep; go on with the optimiser it is of, or delete optimizer.safetensors"
            )
        if name not in parameters:
            raise CheckpointError(f"the optimiser's state has {name}, which the stage has not")
        parameter = parameters[name]
        if kind != "step" and not _fits(value, parameter):
            raise CheckpointError(
                f"the optimiser's state for {name} has shape {tuple(value.shape)}, "
                f"the stage's {tuple(parameter.shape)}"
            )
        # A fused step walks raw memory, so the state must have the parameter's own strides.
        like = torch.empty_like(parameter) if value.shape == parameter.shape else None
        like = value.new_empty(value.shape, device=parameter.device) if like is None else like
        optimizer.state[parameter][kind] = like.copy_(value).detach()


def _kept(optimizer: torch.optim.Optimizer) -> dict[Tensor, set[str]]:
    """What the optimiser keeps of each parameter."""
    return {
        parameter: _MUON[group["orthogonal"]]
        if isinstance(optimizer, Muon)
        else _STATE[type(optimizer)]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _fits(value: Tensor, parameter: Tensor) -> bool:
    """Whether ``value`` has the parameter's shape, or is its factor: 1 where it is constant."""
    pairs = zip(value.shape, parameter.shape, strict=False)
    return value.ndim == parameter.ndim and all(mine in (1, theirs) for mine, theirs in pairs)


def _trainable(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)
