"""How the C library hands memory out while weights are loaded. It knows no weights."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_WEIGHTS, _LARGEST = 2**16, 2**25


@contextmanager
def given_back_when_freed() -> Iterator[None]:
    """Memory of 64 KiB and more that is taken in this context goes back to the system when freed.

    glibc would keep holes where weights were, which the next stage does not fit into. Afterwards
    it keeps what is up to 32 MiB, the most its own adaptation would choose: activations come and
    go in every step. Elsewhere than on glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _WEIGHTS)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)
