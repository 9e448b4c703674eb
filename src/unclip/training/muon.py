"""Muon: momentum made orthogonal, for weight matrices; AdamW for everything else.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), with the
update scaled to AdamW's size (J. Liu et al., arXiv 2502.16982 §2.2) so that one learning rate and
one decay serve both kinds of parameters. It knows no network.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW, Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic a·s + b·s³ + c·s⁵: steep at zero, and singular values end in about 0.7 to 1.2."""
ITERATIONS = 5
ADAM_SIZE = 0.2
"""Root mean square of AdamW's updates, as observed in training (arXiv 2502.16982 §2.2)."""


def orthogonal(matrices: Float[Tensor, "k rows columns"]) -> Float[Tensor, "k rows columns"]:
    """Replace the singular values of matrices by values near 1 (Newton–Schulz).

    The iteration runs in bfloat16, which it tolerates, where ``matrices`` are float32.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16() if matrices.dtype == torch.float32 else matrices
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


class Muon(Optimizer):
    """Muon for the groups marked ``orthogonal``, AdamW for the others, in one optimiser.

    Args:
        groups: parameter groups; one with ``"orthogonal": True`` holds weights of two axes or
            more, of which all but the first count as columns (a convolution's k·k·in).
        lr: learning rate of both.
        betas: AdamW's; the first is not Muon's momentum.
        eps: AdamW's.
        momentum: of Muon, in Nesterov's form.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.95,
    ) -> None:
        groups = [{"orthogonal": False, **group} for group in groups]
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, "momentum": momentum})
        plain = [group for group in self.param_groups if not group["orthogonal"]]
        # The very same dicts: a learning rate set on this optimiser reaches AdamW.
        self._adam = AdamW([{"params": [torch.zeros(())]}], lr=lr, betas=betas, eps=eps)
        self._adam.param_groups.clear()
        for group in plain:
            for key, value in self._adam.defaults.items():
                group.setdefault(key, value)
            self._adam.param_groups.append(group)
        self._adam.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._adam.step()
        for group in self.param_groups:
            if group["orthogonal"]:
                self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        """Move the matrices of a group, those of one shape together: they are many and small."""
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                update = self._momentum(parameter, group["momentum"]).flatten(1)
                alike[update.shape].append((parameter, update))
        for shape, moved in alike.items():
            size = ADAM_SIZE * max(shape) ** 0.5
            steps = orthogonal(torch.stack([update for _, update in moved]))
            for (parameter, _), step in zip(moved, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.view_as(parameter), alpha=-group["lr"] * size)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """The gradient after Nesterov's momentum."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(state["momentum"], momentum)
