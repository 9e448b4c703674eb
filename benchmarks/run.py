"""Measure this project beside its peers: ``python benchmarks/run.py [NAME …] [--pairs 7]``.

Makes the peers' environments on first use, measures both sides of each case in turns, and writes
``results/NAME.json``. ``python benchmarks/report.py`` puts those into docs/performance.md.
"""

import argparse
import datetime
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cases import CASES, Case, Side
from environments import python_of
from machine import load_average, machine_class
from measure import Summary, alternate, ratios
from workers import Worker, WorkerError

RESULTS = Path(__file__).parent / "results"
QUIET = 0.5
"""Load average above which figures are doubtful."""


def measure(case: Case, pairs: int, quick: bool, profiled: bool) -> dict[str, Any]:
    """Run one case; everything its report needs.

    Raises:
        WorkerError: a side could not be built or run.
    """
    load = load_average()
    if load > QUIET:
        print(f"  load average {load:.1f}: something else is running, figures are doubtful")
    sides = {"ours": case.ours} | ({"theirs": case.theirs} if case.theirs else {})
    result: dict[str, Any] = {
        "name": case.name,
        "title": case.title,
        "must": case.must,
        "per": case.per,
        "environ": case.environ,
        "date": datetime.date.today().isoformat(),
        "machine": machine_class(),
        "load_before": round(load, 2),
        "pairs": pairs,
        "sides": {},
    }
    with ExitStack() as stack:
        workers = {}
        for name, side in sides.items():
            worker = stack.enter_context(Worker(python_of(side.environment), case.environ))
            options = side.options | (case.quick if quick else {})
            prepared = worker.ask("prepare", subject=side.subject, options=options)
            measured = {} if case.stages else worker.ask("measure")
            result["sides"][name] = _described(side, options) | prepared | measured
            workers[name] = worker
        if case.stages:
            return result | _complete_run(case, result, workers)
        seconds = alternate(workers, pairs)
        if profiled:
            for name, worker in workers.items():
                result["sides"][name] |= worker.ask("profile")
    for name, values in seconds.items():
        _add_times(result["sides"][name], values, case.per)
    if case.theirs:
        _add_ratios(result, seconds, case.by_work)
    return result


def _complete_run(case: Case, result: dict[str, Any], workers: dict[str, Worker]) -> dict[str, Any]:
    """One run of each side, a step of one after a step of the other; all of it, and its steps.

    A stage's first step also holds what leads to it: encoding the text, loading weights. So what
    is wanted is asked of the median steps times their counts.
    """
    counts = result["sides"]["ours"]["options"]["steps"]
    seconds = alternate(workers, sum(counts))
    sides = {name: side | workers[name].ask("peak") for name, side in result["sides"].items()}
    steps = dict.fromkeys(sides, 0.0)
    parts = []
    first = 0
    for stage, count in zip(case.stages, counts, strict=True):
        part = result | {
            "name": f"{case.name}-{stage}",
            "title": f"{case.title}: a step of the {stage}",
            "must": None,
            "pairs": count,
            "sides": {name: side | {"peak_gib": 0.0} for name, side in sides.items()},
        }
        _compare(part, {name: values[first : first + count] for name, values in seconds.items()})
        for name, side in part["sides"].items():
            steps[name] += count * side["time"]["median"]
        parts.append(part)
        first += count
    alone = parts[0] | {
        "name": f"{case.name}-steps",
        "title": f"{case.title}: median steps times their counts",
        "must": case.must,
        "sides": {name: dict(side) for name, side in parts[0]["sides"].items()},
    }
    _compare(alone, {name: [value] for name, value in steps.items()})
    whole = result | {"must": None, "pairs": 1, "sides": sides, "parts": [alone, *parts]}
    _compare(whole, {name: [sum(values)] for name, values in seconds.items()})
    return whole


def _compare(result: dict[str, Any], seconds: dict[str, list[float]]) -> None:
    for name, values in seconds.items():
        _add_times(result["sides"][name], values, 1)
    _add_ratios(result, seconds, by_work=False)


def _described(side: Side, options: dict[str, Any]) -> dict[str, Any]:
    return {"label": side.label, "options": options}


def _add_times(side: dict[str, Any], seconds: list[float], per: int) -> None:
    side["seconds"] = [float(f"{value:.5g}") for value in seconds]
    side["time"] = Summary.of([value / per for value in seconds]).plain()
    side["gflop"] = round(side["gflop"], 3)
    side["peak_gib"] = round(side["peak_gib"], 3)
    side["tflop_per_second"] = round(side["gflop"] / 1e3 / Summary.of(seconds).median, 4)


def _add_ratios(result: dict[str, Any], seconds: dict[str, list[float]], by_work: bool) -> None:
    ours, theirs = result["sides"]["ours"], result["sides"]["theirs"]
    result["work"] = round(ours["gflop"] / theirs["gflop"], 4) if theirs["gflop"] else 1.0
    credit = result["work"] if by_work else 1.0
    slow = [value * credit for value in seconds["theirs"]]
    result["ratio"] = ratios(slow, seconds["ours"]).plain()


def say(result: dict[str, Any]) -> None:
    """Print a result in a few lines."""
    for side in result["sides"].values():
        time = side["time"]
        speed = f", {side['tflop_per_second']:.3f} TFLOP/s" if side["gflop"] else ""
        print(
            f"  {side['label']:<15} {time['median']:.4g} s "
            f"({time['lower']:.4g} to {time['upper']:.4g}){speed}, {side['peak_gib']:.2f} GiB"
        )
    if ratio := result.get("ratio"):
        must = f", wanted {result['must']}" if result["must"] else ""
        print(
            f"  {ratio['median']:.2f} times faster "
            f"({ratio['lower']:.2f} to {ratio['upper']:.2f}){must}"
        )


def main() -> None:
    """Read the command line, measure, write results."""
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--pairs", type=int, default=7, help="measurements of each side")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the command")
    parser.add_argument("--profile", action="store_true", help="keep the slowest operators too")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the results")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no case {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = False
    arguments.output.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        if case.name not in arguments.names and (arguments.names or case.named):
            continue
        print(case.title, flush=True)
        try:
            result = measure(case, arguments.pairs, arguments.quick, arguments.profile)
        except WorkerError as error:
            print(f"  not measured: {error}")
            failed = True
            continue
        say(result)
        for part in result.get("parts", ()):
            print(part["title"])
            say(part)
        if arguments.quick:
            continue
        path = arguments.output / f"{case.name}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
