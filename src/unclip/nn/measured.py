"""Tables that are measured or stored, not trained, and travel with the weights."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class Measured(nn.Module):
    """Tables that are saved with the weights, NaN until measured or stored.

    They are never rounded: where the module around them is cast to a narrower dtype, they keep
    theirs. A rounded std would shift embeddings.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._measured = False
        for name, shape in shapes.items():
            self.register_buffer(name, torch.full(shape, torch.nan))

    @property
    def measured(self) -> bool:
        """Whether every table holds numbers."""
        if not self._measured:  # remembered, for asking a GPU makes it wait
            self._measured = all(bool(table.isfinite().all()) for table in self.buffers())
        return self._measured

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Measured":
        def not_narrower(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if isinstance(tensor, nn.Parameter) or moved.dtype == tensor.dtype:
                return moved
            wider = torch.promote_types(moved.dtype, tensor.dtype)
            return tensor.to(moved.device, wider)

        return super()._apply(not_narrower, recurse)
