"""Frozen configs: strict reading, dotted overrides, errors that name the field."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from unclip.config import Config
from unclip.errors import OptionError


class Inner(Config):
    channels: int = Field(default=8, ge=1)
    kind: Literal["a", "b"] = "a"
    multipliers: tuple[int, ...] = (1, 2)

    @model_validator(mode="after")
    def _check(self) -> "Inner":
        if len(self.multipliers) > self.channels:
            raise ValueError("more multipliers than channels")
        return self


class Outer(Config):
    size: int = 64
    rate: float = 1e-3
    title: str = ""
    network: Inner = Inner()
    other: int | None = None


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Outer().size = 3  # type: ignore[misc]


def test_what_parse_refuses_is_named_with_its_source() -> None:
    for values, culprit in (
        ({"sise": 3}, "sise: no such field"),
        ({"network": {"chanels": 3}}, "network.chanels: no such field"),
        ({"network": {"channels": 0}}, "network.channels: "),
        ({"size": "large"}, "size: "),
        ({"rate": float("nan")}, "rate: "),
        ({"network": {"channels": 1}}, "network: more multipliers than channels"),
    ):
        with pytest.raises(OptionError) as caught:
            Outer.parse(values, source="model/config.json")
        message = str(caught.value)
        assert message.startswith("model/config.json: ")
        assert culprit in message
        assert "\n" not in message


def test_every_wrong_field_is_named() -> None:
    with pytest.raises(OptionError, match=r"size: .*; title: "):
        Outer.parse({"size": "x", "title": 3}, source="here")


def test_updated_goes_into_nested_configs() -> None:
    before = Outer(size=32, network=Inner(channels=4))
    after = before.updated({"network": {"multipliers": (3,)}})
    assert after == Outer(size=32, network=Inner(channels=4, multipliers=(3,)))
    assert before.network.multipliers == (1, 2)
    kept = before.updated({"network": {"kind": "a", "multipliers": (3,)}})
    assert kept == after


class Blur(Config):
    kind: Literal["blur"] = "blur"
    sigma: float = 0.6


class Nothing(Config):
    kind: Literal["nothing"] = "nothing"


class Corrupted(Config):
    corruption: Blur | Nothing = Field(default=Blur(), discriminator="kind")


def test_another_kind_takes_nothing_over() -> None:
    clean = Corrupted(corruption=Nothing())
    assert Corrupted().override({"corruption.kind": "nothing"}) == clean
    assert Corrupted().override({"corruption": '{"kind": "nothing"}'}) == clean
    blurred = clean.override({"corruption": '{"kind": "blur", "sigma": 2}'})
    assert blurred.corruption == Blur(sigma=2)
    assert blurred.override({"corruption.kind": "blur"}) == blurred


def test_a_field_is_set_in_one_way() -> None:
    with pytest.raises(OptionError, match=r"--set network\.channels: 'network' is set as a whole"):
        Outer().override({"network": "3", "network.channels": "3"})


def test_override_reads_json_where_it_is_json() -> None:
    changed = Outer().override(
        {
            "size": "128",
            "rate": "2e-4",
            "title": "a cat",
            "network.multipliers": "[1, 2, 4]",
            "network.channels": "16",
            "other": "null",
        }
    )
    inner = Inner(channels=16, multipliers=(1, 2, 4))
    assert changed == Outer(size=128, rate=2e-4, title="a cat", network=inner)


def test_overrides_of_one_config_are_checked_together() -> None:
    """Each alone would be refused: three multipliers of two channels, or the other way round."""
    start = Outer(network=Inner(channels=1, multipliers=(1,)))
    with pytest.raises(OptionError, match="more multipliers"):
        start.override({"network.multipliers": "[1, 2, 3]"})
    both = start.override({"network.multipliers": "[1, 2, 3]", "network.channels": "3"})
    assert both.network == Inner(channels=3, multipliers=(1, 2, 3))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("networc.channels", "3", "no 'networc'; fields here: size, rate, title, network, other"),
        ("network.chanels", "3", "no 'chanels'; fields here: channels, kind, multipliers"),
        ("size.width", "3", "no 'width'; fields here: none, it is a single value"),
        ("network.channels", "many", "network.channels: "),
        ("network.kind", "c", "network.kind: "),
        ("rate", "NaN", "rate: "),
        ("", "3", "there is no ''"),
    ],
)
def test_an_override_that_fails_names_the_field(path: str, value: str, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        Outer().override({path: value})
    assert f"--set {path}" in str(caught.value)
    assert message in str(caught.value)


@given(size=st.integers(), rate=st.floats(allow_nan=False, allow_infinity=False))
def test_json_round_trip(size: int, rate: float) -> None:
    config = Outer(size=size, rate=rate, network=Inner(multipliers=(3,)))
    assert Outer.parse(config.model_dump(mode="json"), source="json") == config
    assert config.override({"size": str(size), "rate": repr(rate)}) == config
