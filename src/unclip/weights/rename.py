"""A checked table from their tensor names to ours. It knows no model and no file format."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unclip.errors import CheckpointError
from unclip.weights.tensors import Tensors


@dataclass(frozen=True)
class Rule:
    """How one or several of their tensors become one or several of ours.

    Names are templates: ``{word}`` stands for one or more characters that are no dot, the same
    in every name of the rule: ``Rule("blocks.{n}.fc.{kind}", "layers.{n}.linear.{kind}")``.

    Several of theirs become one of ours by ``change``, which takes them in order and returns
    one, such as ``lambda *qkv: torch.cat(qkv)``. One becomes several where it returns a tuple.
    No name of ours: the tensor is known and of no use. No name of theirs: ours is what
    ``change`` makes of nothing.
    """

    theirs: str | tuple[str, ...]
    ours: str | tuple[str, ...] = ()
    change: Callable[..., Any] | None = None


@dataclass(frozen=True)
class _Move:
    """A rule with its words filled in."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    change: Callable[..., Any] | None = field(default=None, compare=False)


def renamed(tensors: Tensors, rules: Sequence[Rule], *, name: str) -> Iterator[tuple[str, Tensor]]:
    """Our names with tensors, one at a time; nothing is read before it is its turn.

    All names are checked at once, before the first tensor: each of theirs is used by exactly
    one rule (the first that fits it).

    Args:
        tensors: theirs.
        rules: the table.
        name: of the checkpoint, for errors.

    Raises:
        CheckpointError: a tensor no rule knows, or one that a rule needs and that is missing.
    """
    return _run(tensors, _plan(tensors, rules, name))


def _plan(tensors: Tensors, rules: Sequence[Rule], name: str) -> list[_Move]:
    moves: dict[_Move, None] = {}
    patterns = [(rule, _tuple(rule.theirs), _tuple(rule.ours)) for rule in rules]
    compiled = [
        (rule, ours, theirs, [_regex(t) for t in theirs]) for rule, theirs, ours in patterns
    ]
    moves.update(
        {_Move((), ours, rule.change): None for rule, ours, theirs, _ in compiled if not theirs}
    )
    for key in tensors:
        for rule, ours, theirs, regexes in compiled:
            match = next((m for regex in regexes if (m := regex.fullmatch(key))), None)
            if match:
                words = match.groupdict()
                moves[_Move(_fill(theirs, words), _fill(ours, words), rule.change)] = None
                break
        else:
            raise CheckpointError(f"{name}: tensor {key} is not known in a checkpoint of this kind")
    made: set[str] = set()
    for move in moves:
        for key in move.theirs:
            if key not in tensors:
                raise CheckpointError(f"{name}: tensor {key} is missing")
        for key in move.ours:
            assert key not in made, f"two rules make {key}"
            made.add(key)
    return list(moves)


def _run(tensors: Tensors, moves: Sequence[_Move]) -> Iterator[tuple[str, Tensor]]:
    for move in moves:
        if not move.ours:
            continue
        taken = [tensors[key] for key in move.theirs]
        results: Any = move.change(*taken) if move.change else taken[0]
        if isinstance(results, Tensor):
            results = (results,)
        assert len(results) == len(move.ours), f"{move.theirs} -> {move.ours}"
        yield from zip(move.ours, results, strict=True)


def _tuple(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _fill(names: tuple[str, ...], words: dict[str, str]) -> tuple[str, ...]:
    return tuple(name.format_map(words) for name in names)


def _regex(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    seen: set[str] = set()
    pattern = ""
    for i, part in enumerate(parts):
        if i % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P={part})"
        else:
            seen.add(part)
            pattern += f"(?P<{part}>[^.]+)"
    return re.compile(pattern)
