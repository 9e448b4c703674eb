"""Scripts of the recipe are commands: none ends without having done anything."""

import re
import runpy
import sys
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "recipes" / "emoji"
SCRIPTS = sorted(
    path.stem for path in RECIPE.glob("*.py") if re.search(r"^def main\(", path.read_text(), re.M)
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_tells_its_options(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(RECIPE / f"{name}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out
