import torch
from int8 import LEVELS, rounded, size


def test_each_row_takes_the_nearest_of_its_own_255_values():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, generator=generator) * torch.tensor([1e-3, 1, 10, 0, 5]).view(
        5, 1, 1, 1
    )
    near = rounded(weight)
    for row, found in zip(weight.flatten(1), near.flatten(1), strict=True):
        step = row.abs().max() / LEVELS
        assert (row - found).abs().max() <= step / 2 + 1e-9
        assert found.unique().numel() <= 2 * LEVELS + 1
        if step:
            assert torch.allclose((found / step).round(), found / step, atol=1e-3)
    assert torch.equal(near[3], torch.zeros(3, 3, 3))
    assert torch.allclose(rounded(near), near)


def test_vectors_stay_and_count_two_bytes_a_number():
    bias = torch.randn(7)
    assert torch.equal(rounded(bias), bias)
    assert size(bias) == 14
    assert size(torch.zeros(4, 6)) == 24 + 8
