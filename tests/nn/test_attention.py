import pytest
import torch

from unclip.nn.attention import attend


@pytest.mark.parametrize("masked", [False, True])
def test_training_in_bfloat16_computes_what_float32_does(masked):
    """On CPUs the two take different routes; results and gradients agree to bfloat16's grain."""
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 3, n, 16, generator=generator) for n in (5, 7, 7)]
    mask = torch.arange(7) < torch.tensor([3, 7])[:, None, None, None] if masked else None
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        leaves = [x.detach().to(dtype).requires_grad_() for x in inputs]
        y = attend(*leaves, mask)
        assert y.dtype == dtype
        gradients = torch.autograd.grad(y.float().square().sum(), leaves)
        results.append([y.detach(), *gradients])
    for exact, rounded in zip(*results, strict=True):
        assert (exact - rounded.float()).abs().max() < 0.03 * exact.abs().max()
    if masked:
        assert not results[1][2][0, :, 3:].any(), "masked keys get no gradient"
