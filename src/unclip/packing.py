"""Weights laid out as the processor's kernels read them, for inference on CPUs.

PyTorch otherwise rearranges the weights of a convolution or linear layer in every call, which on
small images takes longer than the arithmetic. It knows no network and no runtime.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch and this processor compute in ``dtype`` with packed weights."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        with torch.no_grad():
            PackedLinear(nn.Linear(2, 2, dtype=dtype))(torch.zeros(1, 2, dtype=dtype))
            PackedConv2d(nn.Conv2d(2, 2, 3, dtype=dtype))(torch.zeros(1, 2, 3, 3, dtype=dtype))
    except (AttributeError, RuntimeError):
        # The operators are those that torch.compile uses for frozen weights; not every build
        # has them, nor every processor a kernel for this dtype.
        return False
    return True


def pack(module: nn.Module) -> None:
    """Replace the convolutions and linear layers below ``module`` by packed ones, in place.

    The network can then only be evaluated; gradients with respect to its inputs still exist, and
    its state dict is what it was.
    """
    # named_children() would keep every replaced layer until its end.
    for name in [name for name, _ in module.named_children()]:
        child = module.get_submodule(name)
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        elif type(child) is nn.Conv2d and _gains(child):
            setattr(module, name, PackedConv2d(child))
        else:
            pack(child)


def _gains(conv: nn.Conv2d) -> bool:
    # The layout for a 1×1 kernel depends on the size of the image; of the wrong one, a call
    # takes forty times as long.
    wide = max(conv.kernel_size) > 1
    return wide and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


class _Packed(nn.Module, ABC):
    """A weight in oneDNN's layout, and a bias.

    What the layout cannot do (being moved, copied, pickled, overwritten) is done with the plain
    weight, which is packed again where that is possible.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @abstractmethod
    def _reordered(self, weight: Tensor) -> Tensor:
        """The weight as oneDNN wants it."""

    def _pack(self) -> None:
        self.weight = nn.Parameter(self._reordered(self.weight), requires_grad=False)

    def _plain(self) -> Tensor:
        return self.weight.to_dense() if self.weight.is_mkldnn else self.weight

    @contextmanager
    def _unpacked(self) -> Iterator[None]:
        self.weight = nn.Parameter(self._plain(), requires_grad=False)
        yield
        if self.weight.device.type == "cpu" and can_pack(self.weight.dtype):
            self._pack()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        with self._unpacked():
            return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self._plain()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        with self._unpacked():
            super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        plain = nn.Parameter(self._plain(), requires_grad=False)
        return self.__dict__ | {"_parameters": self._parameters | {"weight": plain}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        with self._unpacked():
            pass


class PackedConv2d(_Packed):
    """`nn.Conv2d` with its weight packed, for inputs of the shape it has last seen.

    Which layout is the right one depends on it: in the wrong one, a call takes up to twice as
    long, or much longer where the input is small.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(conv)
        self.geometry = conv.padding, conv.stride, conv.dilation, conv.groups
        self.fits: torch.Size | None = None
        self._pack()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Convolve."""
        padding, stride, dilation, groups = self.geometry
        if not self.weight.is_mkldnn or (x.requires_grad and torch.is_grad_enabled()):
            return conv2d(x, self._plain(), self.bias, stride, padding, dilation, groups)
        if x.shape != self.fits:
            self.weight = nn.Parameter(self._plain(), requires_grad=False)
            self.fits = x.shape
            self._pack()
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, padding, stride, dilation, groups, "none", [], ""
        )

    def _reordered(self, weight: Tensor) -> Tensor:
        shape = None if self.fits is None else list(self.fits)
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *self.geometry, shape)


class PackedLinear(_Packed):
    """`nn.Linear` with its weight packed."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self._pack()

    def forward(self, x: Float[Tensor, "... c"]) -> Float[Tensor, "... c2"]:
        """Multiply."""
        if not self.weight.is_mkldnn or (x.requires_grad and torch.is_grad_enabled()):
            return linear(x, self._plain(), self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")

    def _reordered(self, weight: Tensor) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight)
