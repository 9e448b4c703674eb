"""Noise belongs to the sample: batch size, order and processes do not change it."""

import itertools

import pytest
import torch

from unclip.randomness import InjectedNoise, Randomness, derive_seed


def test_an_image_gets_the_same_noise_in_any_batch() -> None:
    together = Randomness([1, 2, 3])
    first, second = together.normal(4, 4), together.normal(2)
    for position, seed in enumerate([1, 2, 3]):
        alone = Randomness([seed])
        assert torch.equal(alone.normal(4, 4)[0], first[position])
        assert torch.equal(alone.normal(2)[0], second[position])


def test_two_processes_draw_what_one_draws() -> None:
    one = Randomness.for_step(7, 3, first=0, batch=16)
    two = [Randomness.for_step(7, 3, first=rank * 8, batch=8) for rank in range(2)]
    assert torch.equal(one.normal(5), torch.cat([r.normal(5) for r in two]))
    assert torch.equal(one.integers(1000), torch.cat([r.integers(1000) for r in two]))


@pytest.mark.parametrize("cuts", [(0, 6, 12), (0, 3, 5, 11, 12), (0, 8, 12)])
def test_a_batch_cut_anywhere_draws_the_same(cuts: tuple[int, ...]) -> None:
    def draw(first: int, last: int) -> list[torch.Tensor]:
        streams = Randomness.for_step(7, 3, first, last - first)
        corruption = streams.split("corruption")
        draws = [streams.integers(1000), streams.normal(3, 5), streams.uniform()]
        return [*draws, corruption.normal(2)]

    parts = [draw(first, last) for first, last in itertools.pairwise(cuts)]
    assert Randomness.for_step(7, 3, 3, 2).batch == 2
    for whole, cut in zip(draw(0, 12), zip(*parts, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(cut))


def test_streams_differ_between_steps_purposes_and_samples() -> None:
    draws = [
        Randomness.for_step(7, 3, 0, 1).normal(64),
        Randomness.for_step(7, 4, 0, 1).normal(64),
        Randomness.for_step(8, 3, 0, 1).normal(64),
        Randomness.for_step(7, 3, 1, 1).normal(64),
        Randomness.for_step(7, 3, 0, 1).split("prior").normal(64),
    ]
    correlations = torch.corrcoef(torch.cat(draws)) - torch.eye(len(draws))
    assert correlations.abs().max() < 0.5


def test_seeds_are_the_same_everywhere() -> None:
    assert derive_seed(0, "prior", 5) == derive_seed(0, "prior", 5)
    assert derive_seed(0, "prior", 5) == 1992820063050693204


def test_injected_noise_is_handed_out_in_order_and_checked() -> None:
    noise = InjectedNoise([torch.zeros(2, 3), torch.ones(2, 3)])
    assert noise.normal(3).sum() == 0
    assert noise.normal(3).sum() == 6
    with pytest.raises(ValueError, match="asked for"):
        InjectedNoise([torch.zeros(2, 3)]).normal(4)


def test_joined_streams_are_those_of_the_parts() -> None:
    def parts() -> list[Randomness]:
        return [Randomness([1, 2]), Randomness([3])]

    joined = Randomness.joined(parts())
    assert joined.batch == 3
    assert torch.equal(joined.normal(4), torch.cat([part.normal(4) for part in parts()]))


def test_injected_numbers_of_every_kind() -> None:
    noise = InjectedNoise(
        [torch.zeros(6, 3)], [torch.full((2,), 0.5)], [torch.tensor([[7], [9]])], batch=2
    )
    assert noise.batch == 2
    assert noise.uniform().tolist() == [0.5, 0.5]
    assert noise.integers(10, 1).tolist() == [[7], [9]]
    # Three candidates are drawn as one batch of three times the rows.
    joined = Randomness.joined([noise.split(f"candidate {k}") for k in range(3)])
    assert joined.normal(3).shape == (6, 3)
    with pytest.raises(StopIteration):
        noise.normal(3)
