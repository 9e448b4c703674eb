"""Studies are modules of `experiments`, on the data that the tests of the recipe pack."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "experiments"), str(ROOT / "recipes" / "emoji")]

# Both conftest modules have the same name, so the fixture is loaded by its path.
_spec = importlib.util.spec_from_file_location(
    "emoji_fixtures", ROOT / "tests" / "recipes" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_emoji = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_emoji)
packed = _emoji.packed
