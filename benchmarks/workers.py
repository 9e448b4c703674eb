"""The near end of a worker: start one, and ask it for things."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

SCRIPT = Path(__file__).parent / "worker.py"


class WorkerError(Exception):
    """A worker could not do what it was asked; its traceback."""


class Worker:
    """A process that holds one side of a comparison; close it, or use it in a ``with``.

    Args:
        python: interpreter of the side's environment.
        environ: variables over those of this process, such as limits on vector extensions.
    """

    def __init__(self, python: Path, environ: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [str(python), str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environ or {})},
            text=True,
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer.

        Raises:
            WorkerError: the work failed, or the process is gone.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError("the worker has ended") from None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"the worker ended with code {self._process.wait()}; out of memory?")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def run(self) -> float:
        """Work once; seconds, taken inside the worker."""
        return self.ask("run")["seconds"]

    def close(self) -> None:
        """End the process and give its memory back."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()
        self._process.wait()
