import pytest
import torch

from unclip.nn.attention import attend


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("largest", [0, 2**25])
def test_bfloat16_computes_what_float32_does(masked, largest, monkeypatch):
    """Whichever route is taken, results and gradients agree to bfloat16's grain."""
    monkeypatch.setattr("unclip.nn.attention.LARGEST", largest)
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
