"""What the studies found, as tables in markdown: for the column "Ours" of docs/paper.md, and bars.

python experiments/table.py            # of experiments/results
python experiments/table.py FOLDER
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from study import HERE, RESULTS, Numbers, Study, in_words


def table(results: Path) -> str:
    """Rows "item, study, ours", then every bar; of finished studies alone."""
    rows, bars = [], []
    for name, study in _studies():
        file = results / study.name / "numbers.json"
        numbers: Numbers = json.loads(file.read_text()) if file.exists() else {}
        if numbers.get("complete"):
            for item, words in study.ours(numbers).items():
                rows.append(f"| {item} | `{name}` | {words} |")
            bars += [f"- `{name}`: {in_words(bar)}" for bar in numbers.get("bars", ())]
    head = ["| Item | Study | Ours |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", *bars]).rstrip() + "\n"


def _studies() -> list[tuple[str, Study]]:
    """Every module here that is a study, by name."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.py"))}
    names = [name for name, text in texts.items() if "\nSTUDY = " in text]
    return [(name, import_module(name).STUDY) for name in names]


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if sys.argv[1:] else RESULTS), end="")
