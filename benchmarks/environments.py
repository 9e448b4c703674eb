"""An environment for each peer, made once under ``cache/benchmarks`` and pinned.

A peer's pins lie in ``peers/NAME.txt``, and in ``peers/NAME.no-deps.txt`` where its own
requirements cannot be had on a machine without CUDA.
"""

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = Path(__file__).parent / "peers"
OURS = "unclip"
"""The environment the command itself runs in, where this package is installed."""


def python_of(environment: str) -> Path:
    """The interpreter of an environment, which is made or renewed if its pins have changed."""
    if environment == OURS:
        return Path(sys.executable)
    folder = ROOT / "cache" / "benchmarks" / environment
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pins = [
        path
        for suffix in ("", ".no-deps")
        if (path := PEERS / f"{environment}{suffix}.txt").exists()
    ]
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    mark = folder / "pins.sha256"
    if mark.exists() and mark.read_text() == wanted:
        return python
    print(f"making the environment of {environment} in {folder.relative_to(ROOT)} …", flush=True)
    if not python.exists():
        venv.create(folder, with_pip=True, symlinks=os.name != "nt")
    for path in pins:
        alone = (
            ["--no-deps"]
            if ".no-deps" in path.name
            else ["--constraint", str(ROOT / "constraints.txt")]
        )
        subprocess.run(
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-compile",
                *alone,
                "--requirement",
                str(path),
            ],
            check=True,
        )
    mark.write_text(wanted)
    return python
