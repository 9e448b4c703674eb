import pytest
import torch

from unclip.errors import CheckpointError
from unclip.weights.rename import Rule, renamed
from unclip.weights.tensors import Tensors

RULES = [
    Rule("blocks.{n}.fc.{kind}", "layers.{n}.linear.{kind}"),
    Rule(
        tuple(f"blocks.{{n}}.{part}" for part in "qkv"),
        "layers.{n}.qkv",
        lambda *parts: torch.cat(parts),
    ),
    Rule("pair.{n}", ("first.{n}", "second.{n}"), lambda x: x.chunk(2)),
    Rule("proj", "out.weight", lambda x: x.T),
    Rule("{any}.position_ids"),
    Rule((), "scale", lambda: torch.tensor(3.0)),
]


def given(**changes):
    names = ["blocks.0.fc.weight", "blocks.0.q", "blocks.0.k", "blocks.0.v", "pair.1", "proj"]
    state = {name: torch.arange(4.0) + 10 * i for i, name in enumerate([*names, "x.position_ids"])}
    state["proj"] = torch.arange(6.0).view(2, 3)
    return {**state, **changes}


def test_one_join_split_constant_and_ignored():
    state = given()
    ours = dict(renamed(Tensors.of(state), RULES, name="x"))
    expected = {
        "layers.0.linear.weight": state["blocks.0.fc.weight"],
        "layers.0.qkv": torch.cat([state[f"blocks.0.{part}"] for part in "qkv"]),
        "first.1": state["pair.1"][:2],
        "second.1": state["pair.1"][2:],
        "out.weight": state["proj"].T,
        "scale": torch.tensor(3.0),
    }
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(ours[name], value)


def test_an_unknown_name_is_an_error_before_anything_is_read():
    with pytest.raises(
        CheckpointError, match=r"a file: tensor blocks\.0\.extra\.x\.y is not known"
    ):
        renamed(Tensors.of(given(**{"blocks.0.extra.x.y": torch.ones(1)})), RULES, name="a file")


def test_a_missing_part_of_a_join_is_an_error():
    state = given()
    del state["blocks.0.k"]
    with pytest.raises(CheckpointError, match=r"a file: tensor blocks\.0\.k is missing"):
        renamed(Tensors.of(state), RULES, name="a file")


def test_tensors_are_read_one_at_a_time():
    read = []

    class Watched(Tensors):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    watched = Watched(Tensors.of(given())._entries)
    pairs = renamed(watched, RULES, name="x")
    assert set(read) <= {"blocks.0.fc.weight"}  # what checks types in tests looks at the first
    assert [next(pairs)[0] for _ in range(3)] == ["scale", "layers.0.linear.weight", "layers.0.qkv"]
    assert read[-3:] == [f"blocks.0.{part}" for part in "qkv"]
    assert "pair.1" not in read


def test_a_word_never_spans_a_dot():
    with pytest.raises(CheckpointError, match="not known"):
        renamed(Tensors.of({"blocks.0.1.fc.weight": torch.ones(1)}), RULES[:1], name="x")
