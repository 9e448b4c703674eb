"""The shared transformer against torch's own encoder layer, and its masks."""

import pytest
import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import nn

from unclip.nn.layers import timestep_embedding
from unclip.nn.transformer import Transformer, TransformerConfig, causal_mask, key_mask


def randomise(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=32, depth=3, heads=4)).double().eval()
    randomise(transformer)
    return transformer


def reference(transformer: Transformer) -> nn.TransformerEncoder:
    """torch's pre-norm encoder with the same weights."""
    width, heads = transformer.config.width, transformer.config.heads
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, transformer.config.depth, enable_nested_tensor=False)
    encoder = encoder.double().eval()
    names = {
        "norm_1": "norm1", "norm_2": "norm2", "mlp.0": "linear1", "mlp.2": "linear2",
        "attention.out": "self_attn.out_proj",
    }  # fmt: skip
    state = {}
    for key, value in transformer.state_dict().items():
        key = key.replace("blocks", "layers")
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key.replace("attention.qkv.", "self_attn.in_proj_")] = value
    encoder.load_state_dict(state)
    return encoder


@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch_encoder(transformer: Transformer, masked: bool) -> None:
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    mask = causal_mask(7) if masked else None
    theirs = reference(transformer)(x, mask=~mask if mask is not None else None)
    assert torch.allclose(transformer(x, mask), theirs, rtol=0, atol=1e-9 * theirs.std().item())


def test_causal_mask_hides_the_future(transformer: Transformer) -> None:
    x = torch.randn(1, 7, 32, dtype=torch.float64)
    changed = x.clone()
    changed[:, 4] = torch.randn(32)
    before, after = transformer(x, causal_mask(7)), transformer(changed, causal_mask(7))
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amin(dim=(0, 2)).gt(1e-6).all()


def test_masked_keys_have_no_effect(transformer: Transformer) -> None:
    x = torch.randn(2, 7, 32, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor([[5], [7]])
    changed = x.clone()
    changed[0, 5:] = torch.randn(2, 32)
    before, after = transformer(x, key_mask(mask)), transformer(changed, key_mask(mask))
    assert torch.equal(before[0, :5], after[0, :5])
    assert torch.equal(before[1], after[1])


def test_gradient_checkpointing_changes_no_gradient(transformer: Transformer) -> None:
    transformer.train()
    x = torch.randn(2, 5, 32, dtype=torch.float64)
    gradients = []
    for transformer.gradient_checkpointing in (False, True):
        transformer.zero_grad()
        transformer(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in transformer.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_timestep_embedding_closed_form() -> None:
    embedding = timestep_embedding(torch.tensor([0, 3]), 4, max_period=100.0)
    expected = torch.tensor([
        [1, 1, 0, 0],
        [torch.cos(torch.tensor(3.0)), torch.cos(torch.tensor(0.3)),
         torch.sin(torch.tensor(3.0)), torch.sin(torch.tensor(0.3))],
    ])  # fmt: skip
    assert torch.allclose(embedding, expected, atol=1e-6)


def test_timestep_embedding_of_published_models() -> None:
    """Karlo's width is no power of two: the order of the operations shows in the last bits."""
    t = torch.arange(1000)
    theirs = get_timestep_embedding(t, 320, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.equal(timestep_embedding(t, 320), theirs)
