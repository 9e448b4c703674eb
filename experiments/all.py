"""All studies, the cheap ones first, with one model and one evaluator.

    nice python experiments/all.py           # hours: see the README
    python experiments/all.py --quick        # a few pictures a point, to see that they run
    python experiments/all.py --only inversion binding --minutes 60

What is measured is not measured again: the same command goes on where it stopped. At the end the
table of `table.py` is written beside the results.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module

from study import RESULTS, Stopped, Study, add_options, folder_of, run, write
from table import table
from unclip.errors import UnclipError

STUDIES = (
    "conditioning",
    "typographic_attack",
    "binding",
    "prior_guidance",
    "dot_percentile",
    "components",
    "inversion",
    "text_diffs",
    "decoder_guidance",
    "diversity",  # after decoder_guidance, whose points it takes
    "interpolations",
    "variations",
    "priors",
    "sam_spectrum",
)
"""By cost, those that train last."""


def study(name: str) -> Study:
    """A study by the name of its module."""
    return import_module(name).STUDY


def main(argv: Sequence[str] | None = None) -> int:
    """Run studies one after the other; returns how many failed."""
    arguments = _parser().parse_args(argv)
    os.nice(arguments.nice)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    limit, started, failed = arguments.minutes, time.monotonic(), 0
    for name in arguments.only:
        one = study(name)
        own = argparse.Namespace(**vars(arguments) | {"count": arguments.count or one.count})
        if limit:
            own.minutes = limit - (time.monotonic() - started) / 60
            if own.minutes <= 0:
                print(f"{limit:g} minutes are over; the same command goes on", file=sys.stderr)
                break
        print(f"\n{name}: {one.about} ({one.shows})", flush=True)
        try:
            run(one, own)
        except Stopped as stop:
            print(f"{name}: {stop}; the same command goes on", file=sys.stderr)
            break
        except UnclipError as error:
            print(f"{name}: not run: {error}", file=sys.stderr)
        except Exception:  # a night's other studies must not be lost with one
            traceback.print_exc()
            failed += 1
    results = folder_of(study(STUDIES[0]), arguments).parent
    if results.is_dir():
        write(results / "table.md", table(results))
        print(results / "table.md")
    return failed


def _parser() -> argparse.ArgumentParser:
    words = __doc__.splitlines()[0]
    options = argparse.ArgumentParser(description=f"{words} Results: {RESULTS}")
    add_options(options)
    options.add_argument("--only", nargs="+", choices=STUDIES, default=STUDIES, metavar="STUDY")
    options.add_argument("--count", type=int, help="images a point, each study's own if unset")
    return options


if __name__ == "__main__":
    sys.exit(main())
