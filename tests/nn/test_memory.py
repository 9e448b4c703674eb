"""Keys and values from elsewhere, and computing a sequence position by position."""

import pytest
import torch

from unclip.nn.transformer import (
    Cache,
    Memory,
    Transformer,
    TransformerConfig,
    causal_mask,
    key_mask,
)

WIDTH, DEPTH, HEADS, LENGTH, WORDS = 32, 3, 4, 7, 5


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(0)
    transformer = Transformer(TransformerConfig(width=WIDTH, depth=DEPTH, heads=HEADS)).double()
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return transformer.eval().requires_grad_(False)


def memories(words: int = WORDS) -> list[Memory]:
    generator = torch.Generator().manual_seed(1)
    shape = (2, HEADS, words, WIDTH // HEADS)
    draws = torch.randn(DEPTH, 2, *shape, generator=generator, dtype=torch.float64)
    return [Memory(keys, values) for keys, values in draws]


def sequence() -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, LENGTH, WIDTH, generator=generator, dtype=torch.float64)


def test_a_memory_of_nothing_changes_nothing(transformer: Transformer) -> None:
    x = sequence()
    with_nothing = transformer(x, causal_mask(LENGTH), memories(words=0))
    torch.testing.assert_close(with_nothing, transformer(x, causal_mask(LENGTH)))


def test_a_memory_is_what_earlier_positions_were(transformer: Transformer) -> None:
    """The first positions' own keys and values, given as memories, leave the rest as it was."""
    x, first = sequence(), 3
    whole = transformer(x, causal_mask(LENGTH))
    kept, before = [], x[:, :first]
    for block in transformer.blocks:
        _, keys, values = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for part in block.attention.qkv(block.norm_1(before)).chunk(3, dim=-1)
        )
        kept.append(Memory(keys, values))
        before = block(before, causal_mask(first))
    seen = torch.ones(LENGTH - first, first, dtype=torch.bool)
    mask = torch.cat([seen, causal_mask(LENGTH - first)], dim=1)
    torch.testing.assert_close(transformer(x[:, first:], mask, kept), whole[:, first:])


@pytest.mark.parametrize("sizes", [(1,) * LENGTH, (3, 1, 1, 2)])
def test_cached_positions_equal_the_whole_sequence(
    transformer: Transformer, sizes: tuple[int, ...]
) -> None:
    x = sequence()
    words = torch.tensor([[True] * WORDS, [True] * 2 + [False] * (WORDS - 2)])
    text = key_mask(words)
    rows = torch.cat(
        [text.expand(2, 1, LENGTH, WORDS), causal_mask(LENGTH).expand(2, 1, LENGTH, LENGTH)], dim=-1
    )
    whole = transformer(x, rows, memories())
    caches = [Cache(memory, LENGTH) for memory in memories()]
    start, found = 0, []
    for size in sizes:
        stop = start + size
        here = rows[:, :, start:stop, : WORDS + stop]
        found.append(transformer(x[:, start:stop], here, caches))
        start = stop
    torch.testing.assert_close(torch.cat(found, dim=1), whole)


def test_masked_memories_have_no_part(transformer: Transformer) -> None:
    x, kept = sequence(), memories()
    mask = key_mask(torch.tensor([[True] * 3 + [False] * 2 + [True] * LENGTH] * 2))
    before = transformer(x, mask, kept)
    for memory in kept:
        memory.keys[:, :, 3:] += 100
        memory.values[:, :, 3:] -= 100
    assert torch.equal(transformer(x, mask, kept), before)
