import pytest
import torch

from unclip.nn.attention import attend


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("largest", "cached"),
    [
        pytest.param(0, 2**21, id="fused"),
        pytest.param(2**25, 2**21, id="plain"),
        pytest.param(2**25, 3 * 5 * 7, id="sample by sample"),
        pytest.param(2**25, 2 * 5 * 7, id="two heads at once"),
        pytest.param(2**25, 1, id="head by head"),
    ],
)
def test_bfloat16_computes_what_float32_does(masked, largest, cached, monkeypatch):
    """Whichever route is taken, results and gradients agree to bfloat16's grain."""
    monkeypatch.setattr("unclip.nn.attention.LARGEST", largest)
    monkeypatch.setattr("unclip.nn.attention.CACHED", cached)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_a_mask_does_not_reach_are_attended_to(dtype):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 16, generator=generator) for n in (5, 7, 7))
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    short = torch.tensor([[True, False, True], [False, False, False]])[:, None, None]
    full = torch.cat([short, short.new_ones(2, 1, 1, 4)], dim=-1)
    expected = attend(query, key, value, full)
    assert torch.equal(attend(query, key, value, short), expected)
    assert not torch.allclose(attend(query, key, value), expected)


def test_heads_taken_apart_see_their_own_rows_of_a_mask(monkeypatch):
    """A causal mask, with every head and sample on its own."""
    monkeypatch.setattr("unclip.nn.attention.CACHED", 1)
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, 6, 16, generator=generator) for _ in range(3))
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    exact = attend(query, key, value, causal)
    rounded = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), causal)
    assert (exact - rounded.float()).abs().max() < 0.03 * exact.abs().max()
