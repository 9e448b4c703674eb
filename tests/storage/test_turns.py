"""Networks that take turns: what is in memory, and that it computes what it would otherwise."""

import weakref

import pytest
import torch
from torch import Tensor, nn

from unclip.packing import can_pack, pack
from unclip.storage.streaming import without_memory
from unclip.storage.turns import take_turns


class Relay(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = network()
        self.last = network()


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))


def in_turns(whole: Relay, packed: bool = False) -> tuple[Relay, list[str]]:
    """A relay whose networks are copied from ``whole`` when their turn comes, and the turns."""
    with without_memory():
        relay = Relay().requires_grad_(False)
    turns = []

    def load(name: str, child: nn.Module) -> None:
        turns.append(name)
        assert all(absent(part) for part in relay_of().children()), "one is in memory at a time"
        state = whole.get_submodule(name).state_dict()
        child.load_state_dict({key: value.clone() for key, value in state.items()}, assign=True)
        child.requires_grad_(False)
        if packed:
            pack(child)

    relay_of = weakref.ref(relay)
    take_turns(relay, load)
    return relay, turns


def absent(module: nn.Module) -> bool:
    return all(parameter.is_meta for parameter in module.parameters())


@pytest.fixture
def whole() -> Relay:
    torch.manual_seed(0)
    return Relay().requires_grad_(False)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("packed", [False, True])
def test_the_network_that_is_called_is_there_and_no_other(whole, x, packed: bool) -> None:
    if packed and not can_pack(torch.float32):
        pytest.skip("this processor packs nothing")
    relay, turns = in_turns(whole, packed)
    assert absent(relay.last)
    assert not absent(relay.first)
    for name in ("first", "first", "last", "first", "last", "last"):
        made = getattr(relay, name)(x)
        torch.testing.assert_close(made, getattr(whole, name)(x))
        (other,) = {"first", "last"} - {name}
        assert absent(getattr(relay, other))
    assert turns == ["first", "last", "first", "last"], "loaded when its turn comes, once"


def test_memory_goes_when_the_turn_does(whole, x) -> None:
    relay, _ = in_turns(whole)
    weights = weakref.ref(relay.first[0].weight)
    relay.last(x)
    assert weights() is None
    names = {key: value.shape for key, value in relay.state_dict().items()}
    assert names == {key: value.shape for key, value in whole.state_dict().items()}
    weights, owner = weakref.ref(relay.last[0].weight), weakref.ref(relay)
    del relay
    assert weights() is None, "freed without waiting for the garbage collector"
    assert owner() is None
