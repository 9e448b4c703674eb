"""A process that holds one side of a comparison, driven by JSON lines over stdin and stdout.

Imports, weights and warm-up happen before anything is timed. It runs in the environment of the
side it holds, so it needs nothing but PyTorch and what its subject imports.

A line asks for ``prepare`` (subject, options), ``run``, ``measure``, ``peak`` or ``profile``; a
line answers.
"""

import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOP = 20
"""Rows of a profile that are kept."""


class Side:
    """A subject, and what can be asked of it."""

    def __init__(self) -> None:
        self.subject: Any = None

    def prepare(self, subject: str, options: dict[str, Any]) -> dict[str, Any]:
        """Build ``file.Class`` of the folder ``subjects``; say what was built."""
        module, name = subject.split(".")
        self.subject = getattr(importlib.import_module(f"subjects.{module}"), name)(**options)
        return {"facts": self.subject.facts(), "versions": versions()}

    def run(self) -> dict[str, float]:
        """Work once."""
        started = time.perf_counter()
        self.subject.run()
        return {"seconds": time.perf_counter() - started}

    def measure(self) -> dict[str, float]:
        """Work once untimed: floating-point operations, and the peak of memory so far.

        Also the warm-up. The counter sees matrix products, convolutions and attention.
        """
        import torch
        from torch.utils import flop_counter

        def attention(query: Any, key: Any, value: Any, *rest: Any, **out: Any) -> int:
            return flop_counter.sdpa_flop_count(query, key, value)

        def backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **out: Any) -> int:
            return flop_counter.sdpa_backward_flop_count(grad, query, key, value)

        def convolution(x: Any, weight: Any, *rest: Any, out_shape: Any, **other: Any) -> int:
            return flop_counter.conv_flop_count(x, weight, out_shape)

        def linear(x: Any, weight: Any, *rest: Any, out_shape: Any, **other: Any) -> int:
            return 2 * x.numel() * out_shape[-1]

        aten, mkldnn = torch.ops.aten, torch.ops.mkldnn
        # The counter knows neither fused attention on CPUs nor packed weights.
        others = {
            mkldnn._convolution_pointwise: convolution,
            mkldnn._linear_pointwise: linear,
            aten._scaled_dot_product_flash_attention_for_cpu: attention,
            aten._scaled_dot_product_flash_attention_for_cpu_backward: backward,
        }
        reset_peak()
        self.subject.run()
        peak = peak_gib()
        with flop_counter.FlopCounterMode(display=False, custom_mapping=others) as counter:
            self.subject.run()
        return {"gflop": counter.get_total_flops() / 1e9, "peak_gib": peak}

    def peak(self) -> dict[str, float]:
        """The peak of memory since the process began, building included."""
        return {"gflop": 0.0, "peak_gib": peak_gib()}

    def profile(self) -> dict[str, Any]:
        """Work once under the profiler; operators by the time they took themselves."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU]) as trace:
            self.subject.run()
        events = [event for event in trace.key_averages() if event.self_cpu_time_total > 0]
        total = sum(event.self_cpu_time_total for event in events)
        events.sort(key=lambda event: event.self_cpu_time_total, reverse=True)
        return {
            "operators": [
                {
                    "name": event.key,
                    "calls": event.count,
                    "milliseconds": round(event.self_cpu_time_total / 1e3, 2),
                    "share": round(event.self_cpu_time_total / total, 4),
                }
                for event in events[:TOP]
            ]
        }


def versions() -> dict[str, str]:
    """Versions of the packages that matter and are here."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for package in ("torch", "unclip", "diffusers", "dalle2-pytorch"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def reset_peak() -> None:
    """Forget the peak of memory, where Linux lets a process do so."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_gib() -> float:
    """Largest resident memory of this process (VmHWM) or one it started, in GiB; 0 if unknown."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    own = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 2**20


def serve() -> None:
    """Answer line by line until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w")
    # Whatever libraries print must not mix with the answers.
    os.dup2(2, 1)
    sys.path.insert(0, str(HERE))
    side = Side()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(side, request.pop("do"))(**request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
