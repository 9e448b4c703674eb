"""The kind of machine, read from the processor: what a figure depends on, and no host's name."""

import os
import platform
from pathlib import Path


def machine_class() -> str:
    """Say cores and vector extensions, such as ``2 cores, AVX-512 + bf16, no AMX``."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} core{'' if cores == 1 else 's'}, {_extensions(_flags())}"


def load_average() -> float:
    """Processes wanting to run, averaged over the last minute; 0 where unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next(
        (set(line.split()) for line in lines if line.startswith(("flags", "Features"))), set()
    )


def _extensions(flags: set[str]) -> str:
    if not flags or platform.machine() not in ("x86_64", "AMD64"):
        return platform.machine() + (" + bf16" if "bf16" in flags else "")
    vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
    bf16 = " + bf16" if flags & {"avx512_bf16", "avx_ne_convert"} else ""
    return f"{vectors}{bf16}, {'AMX' if 'amx_tile' in flags else 'no AMX'}"
