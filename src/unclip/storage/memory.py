"""How the C library hands memory out while weights are loaded. It knows no weights."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_WEIGHTS, _LARGEST = 2**16, 2**27


@contextmanager
def given_back_when_freed() -> Iterator[None]:
    """Memory of 64 KiB and more that is taken in this context goes back to the system when freed.

    glibc would keep holes where weights were, which the next stage does not fit into. Modules
    should be built in this context, too: parameters that are soon put on ``meta`` leave such holes
    before anything is loaded.

    Afterwards it keeps what is up to 128 MiB, since activations come and go in every step, and
    memory that is new each time has to be cleared each time. What it kept is given back before the
    next weights come. Elsewhere than on glibc nothing happens.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    mallopt = getattr(library, "mallopt", None)
    trim = getattr(library, "malloc_trim", None)
    if mallopt is None or trim is None:
        yield
        return
    trim(0)
    mallopt(_MMAP_THRESHOLD, _WEIGHTS)
    try:
        yield
    finally:
        trim(0)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, 2 * _LARGEST)
