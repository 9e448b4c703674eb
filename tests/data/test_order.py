import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unclip.data.order import Order, Permutation


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**62))
def test_permutation_is_a_bijection(size: int, seed: int) -> None:
    indices = Permutation(size, seed)(np.arange(size))
    assert np.array_equal(np.sort(indices), np.arange(size))


@settings(deadline=None)
@given(st.integers(1, 2**62), st.integers(0, 2**62), st.data())
def test_any_stretch_without_the_rest(size: int, seed: int, data: st.DataObject) -> None:
    places = np.array(data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True)))
    permutation = Permutation(size, seed)
    indices = permutation(places)
    assert indices.min() >= 0
    assert indices.max() < size
    assert len(set(indices.tolist())) == len(places)
    assert [int(permutation(place[None])[0]) for place in places] == indices.tolist()


@pytest.mark.parametrize("size", [2, 3, 5, 40])
def test_every_index_is_as_likely_at_every_place(size: int) -> None:
    """Chi-square over seeds, at the first place and for the pair of the first two."""
    runs = 100 * size
    drawn = np.array([Permutation(size, seed)(np.array([0, 1])) for seed in range(runs)])
    for column in drawn.T:
        observed = np.bincount(column, minlength=size)
        statistic = ((observed - 100) ** 2 / 100).sum()
        assert statistic < size - 1 + 5 * np.sqrt(2 * size)
    correlation = np.corrcoef(drawn.T)[0, 1]
    assert abs(correlation + 1 / (size - 1)) < 5 / np.sqrt(runs)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(0, 1000), st.booleans())
def test_every_epoch_covers_every_sample_once(size: int, seed: int, shuffle: bool) -> None:
    indices = Order(size, seed, shuffle).indices(np.arange(3 * size))
    for epoch in indices.reshape(3, size):
        assert sorted(epoch) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    one, other = (Order(100, seed).indices(np.arange(200)) for seed in (1, 2))
    assert not np.array_equal(one[:100], one[100:])
    assert not np.array_equal(one, other)
    assert np.array_equal(one, Order(100, 1).indices(np.arange(200)))


def test_the_order_never_changes() -> None:
    """A resumed training must find the order that it left, also after an upgrade."""
    assert Order(10, 0).indices(np.arange(10)).tolist() == [4, 8, 2, 9, 6, 0, 7, 1, 5, 3]
    assert Order(2**62, 0).indices(np.arange(1)).tolist() == [162356212342768686]


def test_unshuffled() -> None:
    assert Order(3, 0, shuffle=False).indices(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_substitutes_try_everything(size: int, place: int) -> None:
    order = Order(size, 7)
    assert {order.substitute(place, attempt) for attempt in range(1, size + 1)} == set(range(size))


def test_impossible_sizes() -> None:
    for size in (0, 2**62 + 1):
        with pytest.raises(ValueError, match="is not in"):
            Permutation(size, 0)
