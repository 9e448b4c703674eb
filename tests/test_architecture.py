"""The rules of the house, read from the source with `ast`: see docs/architecture.md."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import unclip

PACKAGE = Path(unclip.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors", "config", "randomness", "types", "packing", "identity"},
    {"images", "runtime", "nn", "diffusion", "storage", "adapter"},
    {"clip", "prior", "decoder", "upsampler", "codec", "options"},
    {"pipeline"},
    {"manipulation", "checkpoint", "data"},
    {"weights", "evaluation"},
    {"training"},
    {"presets", "loading"},
    {"cli", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Within layer 0 and at the front the order is fixed by hand; nothing else may look sideways.
SIDEWAYS = {
    ("config", "errors"),
    ("types", "randomness"),
    ("options", "prior"),  # what may be asked of a prior lies beside it
    ("identity", "config"),
    ("identity", "errors"),
    ("__main__", "cli"),
}
SAY_NOTHING = {"utils", "misc", "helpers", "common", "manager", "factory", "base"}


def part(path: Path) -> str:
    """The file or folder directly below the package that ``path`` belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> set[str]:
    """Parts of the package that a module imports, wherever in the file."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            if node.module == "unclip":
                modules.update(f"unclip.{alias.name}" for alias in node.names)
    names = {module.split(".")[1] for module in modules if module.startswith("unclip.")}
    return names & (set(LEVEL) | {part(file) for file in FILES})


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_down(path: Path) -> None:
    here = part(path)
    if here == "__init__":
        return  # hands names on lazily; see test_the_package_imports_nothing_heavy
    assert here in LEVEL, f"{here} has no layer: add it to LAYERS and to docs/architecture.md"
    for other in imports(ast.parse(path.read_text())) - {here}:
        down = LEVEL[other] < LEVEL[here]
        assert down or (here, other) in SIDEWAYS, f"{name_of(path)} imports {other}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= 80, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_say_what_they_are(path: Path) -> None:
    assert path.stem not in SAY_NOTHING
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "a module docstring of one to four lines says what it is"


def test_nn_and_diffusion_do_not_know_each_other() -> None:
    for path in FILES:
        other = {"nn": "diffusion", "diffusion": "nn"}.get(part(path))
        if other:
            assert other not in imports(ast.parse(path.read_text()))


def test_the_package_imports_nothing_heavy() -> None:
    said = "import sys, unclip; print([name for name in sys.modules if name.startswith('unclip.')])"
    run = subprocess.run(
        [sys.executable, "-c", f"{said}; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split("\n")[:2] == ["[]", "False"]


def test_drawing_imports_no_compiler() -> None:
    run = subprocess.run(
        [sys.executable, "-c", DRAWING], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["(256,", "256)", "False"]


DRAWING = """
import sys, unclip
options = unclip.GenerateOptions(size=256, decoder=unclip.SamplingOptions(steps=2))
(drawn,) = unclip.load().generate("a cat", options)
print(drawn.image.size, "torch._dynamo" in sys.modules)
"""


def test_test_modules_have_names_of_their_own():
    """Without packages among the tests, two modules of one name cannot both be imported."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.stem != "conftest"]
    assert not {name for name in names if names.count(name) > 1}
