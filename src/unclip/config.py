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

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def parse(cls: type[C], values: Mapping[str, Any], *, source: str) -> C:
        """Build from plain values; an invalid one raises `OptionError` naming ``source``."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise OptionError(f"{source}: {describe(error)}") from None

    def updated(self: C, values: Mapping[str, Any], *, source: str = "options") -> C:
        """Return a copy with (nested) ``values`` put over its own and validated.

        Where they name another ``kind``, nothing of the old kind's fields is kept.
        """
        return type(self).parse(merged(self.model_dump(), values), source=source)

    def override(self: C, assignments: Mapping[str, str]) -> C:
        """Return a copy with dotted fields replaced, such as ``{"network.channels": "64"}``.

        Texts are read as JSON where they parse as JSON.

        Raises:
            OptionError: a field does not exist, or its value is not possible.
        """
        values: dict[str, Any] = {}
        for path, text in assignments.items():
            self._check_path(path)
            *parents, leaf = path.split(".")
            node = values
            for name in parents:
                node = node.setdefault(name, {})
                if not isinstance(node, dict):
                    raise OptionError(f"--set {path}: {name!r} is set as a whole already")
            node[leaf] = read_value(text)
        return self.updated(values, source="--set " + ", ".join(assignments))

    def _check_path(self, path: str) -> None:
        node: Any = self
        for name in path.split("."):
            known = type(node).model_fields if isinstance(node, Config) else {}
            if name not in known:
                fields = ", ".join(known) or "none, it is a single value"
                raise OptionError(f"--set {path}: there is no {name!r}; fields here: {fields}")
            node = getattr(node, name)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``new`` put over ``old``, level by level."""
    if new.get("kind", old.get("kind")) != old.get("kind"):
        return dict(new)  # fields of one kind mean nothing to another
    both = dict(old)
    for name, value in new.items():
        inner = both.get(name)
        nested = isinstance(inner, Mapping) and isinstance(value, Mapping)
        both[name] = merged(inner, value) if nested else value  # type: ignore[arg-type]
    return both


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


def read_value(text: str) -> Any:
    """What a text given for a field says: JSON where it parses as JSON, else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
