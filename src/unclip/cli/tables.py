"""Rows of an evaluation as a table in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from unclip.evaluation.report import Row


def rows_table(rows: "Sequence[Row]") -> "Table":
    """Subject, measure, score with its standard error, n, and the bar if there is one."""
    from rich.table import Table

    bars = any(row.bar is not None for row in rows)
    table = Table("about", "pictures", "measure", "score", "±", "n", *(["bar"] if bars else []))
    last = ""
    for row in rows:
        if last not in ("", row.about):
            table.add_section()
        about = "" if row.about == last else row.about
        score = row.score
        cells = [f"{score.value:.3f}", f"{score.standard_error:.3f}", str(score.n)]
        if bars:
            sign = {None: "", True: " ✓", False: " ✗"}[row.passed]
            limit = "" if row.bar is None else f"{'≤' if row.most else '≥'} {row.bar:g}"
            cells.append(limit + sign)
        table.add_row(about, row.pictures, row.measure, *cells)
        last = row.about
    return table
