"""Frozen, strict configuration: the base of every config, and ``--set a.b=value`` overrides."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from unclip.errors import OptionError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of all configs: immutable, and a misspelt field is an error.

    A config sits beside the class it builds. It is written to ``config.json`` by the program
    and read back strictly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls: type[C], values: Mapping[str, Any], *, source: str) -> C:
        """Build from plain values; an invalid one raises `OptionError` naming ``source``."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise OptionError(f"{source}: {describe(error)}") from None

    def override(self: C, assignments: Mapping[str, str]) -> C:
        """Return a copy with dotted fields replaced, such as ``{"network.channels": "64"}``.

        Values are read as JSON where they parse as JSON and as text otherwise.
        """
        values = self.model_dump()
        for path, text in assignments.items():
            *parents, leaf = path.split(".")
            node: Any = values
            for depth, name in enumerate(parents):
                if not isinstance(node, dict) or not isinstance(node.get(name), dict):
                    known = ", ".join(node) if isinstance(node, dict) else "nothing"
                    at = ".".join(parents[: depth + 1])
                    raise OptionError(f"--set {path}: there is no group {at!r}; known: {known}")
                node = node[name]
            if leaf not in node:
                raise OptionError(f"--set {path}: no such field; known: {', '.join(node)}")
            node[leaf] = _read(text)
        return type(self).parse(values, source="--set " + ", ".join(assignments))


def describe(error: ValidationError) -> str:
    """Put a pydantic error into one line: each field with what is wrong with it."""
    parts = []
    for item in error.errors():
        field = ".".join(str(part) for part in item["loc"]) or "value"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such field"
        parts.append(f"{field}: {message}")
    return "; ".join(parts)


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
