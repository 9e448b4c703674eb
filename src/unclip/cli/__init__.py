"""The command line: one command group, one module per noun."""

import os
import re
import signal
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from types import FrameType
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit with its code; SIGTERM leaves as little behind as an error does."""
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def run(arguments: Sequence[str]) -> int:
    """Run one command; an error a user can mend is one line and code 2."""
    from cyclopts import CycloptsError

    from unclip.cli.app import app
    from unclip.errors import UnclipError

    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            app(
                list(arguments),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
        except UnclipError as error:
            return _complain(str(error))
        except ModuleNotFoundError as error:
            extra = _extra_with(error.name)
            if extra is None:
                raise
            return _complain(f"this needs {error.name}: pip install 'unclip[{extra}]'")
        except CycloptsError as error:
            return _complain(_in_one_line(error))
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            return _complain(
                "out of memory; draw less at once (--batch 1, --tile 256, --low-memory), or train "
                "in parts (--set training.accumulate=4)"
            )
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:
            # The reader left; what is still buffered must not be tried again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _extra_with(module: str | None) -> str | None:
    """The smallest of our optional parts that brings a package along."""
    from importlib.metadata import requires

    brings = defaultdict(set)
    for line in requires("unclip") or ():
        name, extra = re.match(r"([\w.-]+)", line), re.search(r"extra == .(\w+)", line)
        if name and extra:
            brings[extra[1]].add(name[0].replace("-", "_"))
    found = (extra for extra, names in brings.items() if module in names)
    return min(found, key=lambda extra: len(brings[extra]), default=None)


def _in_one_line(error: Exception) -> str:
    from cyclopts import UnknownOptionError
    from pydantic import ValidationError

    from unclip.config import describe

    if isinstance(error, UnknownOptionError) and error.token is not None:
        # Where words may follow, what looks like an option is one of them: it has no keyword.
        option = (error.token.keyword or error.token.value).partition("=")[0]
        if _elsewhere(option):
            # The nearest name that is known here, which would be proposed, means something else.
            return f"{option} does nothing here: it is an option of other commands"
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return describe(cause)
    return " ".join(str(error).split())


def _elsewhere(option: str) -> bool:
    """Whether it is an option of drawing, which this command has not."""
    from unclip.options import GenerateOptions
    from unclip.prior.options import PriorSampling

    stage, *parts = option[2:].replace("-", "_").split(".")
    spelt = not parts or parts[-1] in PriorSampling.model_fields
    return option == "-n" or (stage in GenerateOptions.model_fields and spelt)


def _out_of_memory(error: Exception) -> bool:
    """Whether Python, an accelerator or torch's CPU allocator ran out; torch is not imported."""
    named = type(error).__name__ in ("MemoryError", "OutOfMemoryError")
    return named or "can't allocate memory" in str(error)


def _complain(message: str) -> int:
    print(f"unclip: {message}", file=sys.stderr)
    return 2


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"unclip: {message}", file=sys.stderr)
