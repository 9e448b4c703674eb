"""What the package promises to the outside: its names, its help, and that both come quickly."""

import importlib.util
import os
import re
import subprocess
import sys
import textwrap

import pytest

import unclip
from unclip.options import GenerateOptions, SamplingOptions


def test_public_names_are_sorted_and_importable() -> None:
    assert unclip.__all__ == sorted(unclip.__all__)
    assert set(unclip.__all__) == set(unclip._HOME)
    for name in unclip.__all__:
        # A module of the same name would hide the function as soon as anybody imports it.
        assert importlib.util.find_spec(f"unclip.{name}") is None
        assert getattr(unclip, name).__name__ == name
        assert name in dir(unclip)
    assert unclip.SamplingOptions is SamplingOptions
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = unclip.lode


def test_the_package_and_its_help_do_without_torch() -> None:
    program = """
        import sys
        import unclip
        assert len(sys.modules) < 200, "import unclip imports nothing of weight"
        from unclip.cli import run
        assert run(["--help"]) == 0
        assert run(["generate", "--help"]) == 0
        assert run(["--version"]) == 0
        assert run(["generate", "a cat", "--decoder.stpes", "3"]) == 2
        assert not {"torch", "numpy", "PIL"} & sys.modules.keys()
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert f"unclip {unclip.__version__}" in result.stdout
    assert result.stderr.count("\n") == 1


def help_of(command: str) -> str:
    """The help, from a fresh process on a screen wide enough to break no description."""
    result = subprocess.run(
        [sys.executable, "-m", "unclip", command, "--help"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "400", "PYTHONIOENCODING": "utf-8"},
        timeout=300,
        check=True,
    )
    return result.stdout


def plain(description: str | None) -> str:
    assert description, "every option says what it does"
    return " ".join(description.replace("`", "").split())


def test_the_help_has_every_option_with_its_description() -> None:
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", help_of("generate")).split())
    groups = ("prior", "decoder", "upsampler")
    for name, field in GenerateOptions.model_fields.items():
        if name not in groups:
            assert f"--{name}" in text
            assert plain(field.description) in text
    for group in ("--prior", "--decoder", "--upsampler.{NAME}"):
        for name, field in SamplingOptions.model_fields.items():
            option = f"{group}.{name.replace('_', '-')} "
            assert option in text, option
            following = text[text.index(option) :]
            assert plain(field.description) in following, option
    # The one negative that says more than leaving its option out.
    text = text.replace("--no-low-memory", "")
    for unwanted in ("--no-", "empty-", "[default: 250]", "[default: False]"):
        assert unwanted not in text
    for title in ("Prior", "Decoder", "Upsamplers"):
        assert f" {title} " in text


@pytest.mark.parametrize("command", ["generate", "train", "info"])
def test_every_option_of_a_command_is_described(command: str) -> None:
    options = [line for line in help_of(command).splitlines() if line.startswith("│ --")]
    assert options
    for line in options:
        words = re.sub(r"\[(default|choices).*", "", line.strip("│ ")).split("  ")
        described = [part for part in words[1:] if part.strip()]
        assert described, line
