"""Put the results into docs/performance.md: ``python benchmarks/report.py``.

Everything between the two marks is written anew; the rest of the page is left alone.
"""

import json
from pathlib import Path
from typing import Any

from cases import CASES

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
BEGIN, END = "<!-- results: written by benchmarks/report.py -->", "<!-- end of results -->"
SHOWN = 8
"""Operators of a profile that the page shows."""

Result = dict[str, Any]


def page(text: str, results: list[Result]) -> str:
    """The page with its results replaced."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables(results)}\n{END}{after}"


def tables(results: list[Result]) -> str:
    """All results in Markdown."""
    parts = [_conditions(results), _comparisons(results)]
    parts += [_profile(result) for result in results if _profiled(result)]
    return "\n".join(part for part in parts if part)


def _conditions(results: list[Result]) -> str:
    found: dict[str, set[str]] = {}
    for result in results:
        found.setdefault("machine", set()).add(result["machine"])
        found.setdefault("date", set()).add(result["date"])
        found.setdefault("measurements of each side", set()).add(str(result["pairs"]))
        for side in result["sides"].values():
            for package, version in side["versions"].items():
                found.setdefault(package, set()).add(version)
    lines = [f"- {name}: {', '.join(sorted(values))}" for name, values in found.items()]
    return "\n".join(lines) + "\n"


def _comparisons(results: list[Result]) -> str:
    lines = [
        "| | ours | theirs | times faster | wanted | TFLOP/s, ours and theirs | peak GiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        ours, theirs = result["sides"]["ours"], result["sides"].get("theirs")
        ratio = result.get("ratio")
        cells = [
            result["title"] + (f" ({theirs['label']})" if theirs else ""),
            _time(ours["time"]),
            _time(theirs["time"]) if theirs else "",
            f"**{ratio['median']:.2f}** ({ratio['lower']:.2f}–{ratio['upper']:.2f})"
            if ratio
            else "",
            _wanted(result["must"], ratio),
            _both(ours, theirs, "tflop_per_second", ".3f") if ours["gflop"] else "",
            _both(ours, theirs, "peak_gib", ".2f") if ours["peak_gib"] else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _time(time: dict[str, float]) -> str:
    """Median and quartiles in a unit that suits the median."""
    unit, factor = next(
        (name, factor)
        for name, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6))
        if time["median"] * factor >= 1 or name == "µs"
    )
    median, lower, upper = (time[name] * factor for name in ("median", "lower", "upper"))
    return f"{median:.3g} {unit} ({lower:.3g}–{upper:.3g})"


def _wanted(must: float | None, ratio: dict[str, float] | None) -> str:
    if must is None or ratio is None:
        return ""
    return f"{must:g}" + ("" if ratio["median"] >= must else ", not reached")


def _both(ours: Result, theirs: Result | None, name: str, form: str) -> str:
    values = [format(side[name], form) for side in (ours, theirs) if side]
    return " · ".join(values)


def _profiled(result: Result) -> bool:
    return any("operators" in side for side in result["sides"].values())


def _profile(result: Result) -> str:
    lines = [f"### Where the time goes: {result['title'].lower()}", ""]
    for side in result["sides"].values():
        lines += [f"| {side['label']} | calls | ms | share |", "|---|---|---|---|"]
        for row in side["operators"][:SHOWN]:
            name, share = row["name"], f"{row['share']:.1%}"
            lines.append(f"| `{name}` | {row['calls']} | {row['milliseconds']:.1f} | {share} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Read all results that are there, in the order of the cases."""
    paths = [HERE / "results" / f"{case.name}.json" for case in CASES]
    stored = [json.loads(path.read_text()) for path in paths if path.exists()]
    results = [part for result in stored for part in (result, *result.get("parts", ()))]
    PAGE.write_text(page(PAGE.read_text(), results))
    print(f"{PAGE.relative_to(HERE.parent)}: {len(results)} results")


if __name__ == "__main__":
    main()
