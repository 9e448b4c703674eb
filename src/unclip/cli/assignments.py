"""``--set NAME=VALUE`` of the commands that take it."""

from collections.abc import Iterable

from unclip.errors import OptionError


def assignments_of(texts: Iterable[str] | None, example: str) -> dict[str, str]:
    """What is set, by dotted names, in the order given.

    Args:
        texts: ``NAME=VALUE`` each.
        example: one that this command takes, for errors.

    Raises:
        OptionError: a text is no assignment.
    """
    changes = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name.strip() and equals):
            raise OptionError(f"--set {text}: write NAME=VALUE, such as --set {example}")
        changes[name.strip()] = value.strip()
    return changes
