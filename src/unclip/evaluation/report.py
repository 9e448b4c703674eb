"""What an evaluation says: rows of figures, pictures and plots, as JSON and as a page to read.

Knows no metric. The page and its pictures are plain files that need no server.
"""

import html
import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unclip.errors import ImageError, OptionError
from unclip.evaluation.statistics import Score

JSON, PAGE = "report.json", "report.html"


@dataclass(frozen=True)
class Row:
    """A line of the report."""

    about: str
    """What is judged: rows of one subject stand together."""
    pictures: str
    """Whose pictures: ``real``, ``drawn`` ..."""
    measure: str
    score: Score
    bar: float | None = None
    """What the score should reach, if anything."""
    most: bool = False
    """The bar is what the score should stay below."""
    note: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the bar is reached; None without one, or without a score."""
        if self.bar is None or math.isnan(self.score.value):
            return None
        return self.score.value <= self.bar if self.most else self.score.value >= self.bar

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "about": self.about,
            "pictures": self.pictures,
            "measure": self.measure,
            "score": self.score.as_json(),
            "bar": self.bar,
            "passed": self.passed,
            "note": self.note,
        }


@dataclass
class Report:
    """Rows, and what makes them readable."""

    title: str
    facts: dict[str, Any]
    """Model, data, evaluator, options, counts: what the figures hold for."""
    rows: list[Row] = field(default_factory=list)
    sheets: dict[str, Image.Image] = field(default_factory=dict)
    plots: dict[str, Callable[[Any], None]] = field(default_factory=dict)
    """Each draws into an empty matplotlib figure."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"title": self.title, **self.facts, "rows": [row.as_json() for row in self.rows]}

    def write(self, folder: Path) -> None:
        """Write report.json, report.html and its pictures; the JSON, written last, tells it all.

        Raises:
            OptionError: there are plots but no matplotlib.
            ImageError: the folder cannot be written.
        """
        files = {f"{_slug(name)}.png": _png(sheet) for name, sheet in self.sheets.items()}
        files |= {f"{_slug(name)}.png": plotted(plot) for name, plot in self.plots.items()}
        files[PAGE] = self.page().encode()
        files[JSON] = json.dumps(
            self.as_json(), indent=2, ensure_ascii=False, allow_nan=False
        ).encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                beside = folder / f".{name}.part"
                beside.write_bytes(content)
                beside.replace(folder / name)
        except OSError as error:
            raise ImageError(f"{folder} cannot be written: {error.strerror}") from None

    def page(self) -> str:
        """The report as an HTML page."""
        facts = "".join(
            f"<dt>{_said(name)}</dt><dd>{_said(_plain(value))}</dd>"
            for name, value in self.facts.items()
        )
        pictures = "".join(
            f'<figure><img src="{_slug(name)}.png" alt="{_said(name)}">'
            f"<figcaption>{_said(name)}</figcaption></figure>"
            for name in (*self.plots, *self.sheets)
        )
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_said(self.title)}'
            f"</title><style>{_STYLE}</style><h1>{_said(self.title)}</h1>{_table(self.rows)}"
            f"{pictures}<h2>What was measured</h2><dl>{facts}</dl></html>\n"
        )


def plotted(plot: Callable[[Any], None]) -> bytes:
    """A plot as PNG.

    Raises:
        OptionError: matplotlib is missing.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    plot(figure)
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png")
    return encoded.getvalue()


def require_matplotlib() -> None:
    """Find out before hours of work whether plots can be drawn.

    Raises:
        OptionError: matplotlib is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise OptionError("reports need matplotlib: pip install 'unclip[evaluate]'") from None


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    lines, last = [], ""
    for row in rows:
        verdict = {None: "", True: "✓", False: "✗"}[row.passed]
        bar = "" if row.bar is None else f"{'≤' if row.most else '≥'} {row.bar:g} {verdict}"
        value = "–" if math.isnan(row.score.value) else f"{row.score.value:.4g}"
        error = "" if value == "–" else f"± {row.score.standard_error:.2g}"
        about = "" if row.about == last else row.about
        cells = (about, row.pictures, row.measure, value, error, row.score.n, bar, row.note)
        begins = ' class="begins"' if about else ""
        lines.append(f"<tr{begins}>" + "".join(f"<td>{_said(c)}</td>" for c in cells) + "</tr>")
        last = row.about
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


_COLUMNS = ("about", "pictures", "measure", "score", "standard error", "n", "bar", "note")
_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a;background:#fff}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.25rem .6rem;vertical-align:top}th{border-bottom:2px solid #999}"
    "td:nth-child(4){font-variant-numeric:tabular-nums}.begins td{border-top:1px solid #ccc}"
    "img{max-width:100%}figure{margin:2rem 0}dt{font-weight:600}dd{margin:0 0 .4rem 1rem}"
)


def _png(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return encoded.getvalue()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _said(value: Any) -> str:
    return html.escape(str(value))


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())
