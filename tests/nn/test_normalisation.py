"""The backward pass of narrow groups, against differences, float64 and PyTorch's own."""

import pytest
import torch
from torch import nn

from unclip.nn.normalisation import GroupNorm, _Narrow


def narrow(groups: int, channels: int, size: int, mean: float = 0.0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, channels, size, size, generator=generator, dtype=torch.float64) + mean
    x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(channels, generator=generator, dtype=torch.float64)
    bias = torch.randn(channels, generator=generator, dtype=torch.float64)
    return x.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize(("groups", "channels"), [(2, 4), (3, 3), (1, 5)])
def test_gradient_is_that_of_finite_differences(groups, channels):
    x, weight, bias = narrow(groups, channels, 3)
    assert torch.autograd.gradcheck(_Narrow.apply, (x, weight, bias, groups, 1e-5))


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_in_bfloat16_it_is_as_good_as_bfloat16_can_be(mean):
    exact = narrow(8, 32, 16, mean)
    dy = torch.randn(exact[0].shape, generator=torch.Generator().manual_seed(1))
    dy = dy.bfloat16().to(memory_format=torch.channels_last)
    module = GroupNorm(8, 32)
    module.weight.data, module.bias.data = exact[1].detach().float(), exact[2].detach().float()
    x = exact[0].detach().bfloat16().requires_grad_()
    y = module(x)
    y.backward(dy)
    assert type(y.grad_fn).__name__ == "_NarrowBackward"

    precise = x.detach().double().requires_grad_()
    weight = module.weight.detach().double().requires_grad_()
    bias = module.bias.detach().double().requires_grad_()
    nn.functional.group_norm(precise, 8, weight, bias).backward(dy.double())
    for ours, exactly in ((x, precise), (module.weight, weight), (module.bias, bias)):
        error = (ours.grad.double() - exactly.grad).norm() / exactly.grad.norm()
        # bfloat16 rounds to 2⁻⁹ of a number.
        assert error < 3 * 2**-9


def test_forward_is_pytorchs_bit_for_bit():
    x = narrow(8, 32, 8)[0].detach().bfloat16()
    module, theirs = GroupNorm(8, 32), nn.GroupNorm(8, 32)
    assert torch.equal(module(x), theirs(x))
    with torch.no_grad():
        assert torch.equal(module(x), theirs(x))


def test_elsewhere_pytorch_does_all_of_it():
    module = GroupNorm(2, 64)
    wide = torch.randn(1, 64, 4, 4).bfloat16().to(memory_format=torch.channels_last)
    for x in (wide, torch.randn(1, 64, 4, 4), torch.randn(1, 64, 4).bfloat16()):
        assert "Narrow" not in type(module(x.requires_grad_()).grad_fn).__name__
