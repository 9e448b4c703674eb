"""The transformer of the autoregressive prior: causality, caption, cache, sizes (§1.3, §8.9)."""

from dataclasses import replace

import pytest
import torch
from prior_batches import D, F, N, batch_of, text_of
from torch import Tensor

from unclip.nn.caption_encoder import CaptionEncoderConfig
from unclip.nn.transformer import TransformerConfig
from unclip.prior.autoregressive_network import (
    AutoregressiveNetwork,
    AutoregressiveNetworkConfig,
    FrozenTextConfig,
    Writing,
)
from unclip.types import TextFeatures

K, BUCKETS, B = 6, 10, 3
CLIP_STATES = FrozenTextConfig(width=F)
OWN_ENCODER = CaptionEncoderConfig(
    vocabulary=60, context=12, transformer=TransformerConfig(width=24, depth=2, heads=2)
)
BOTH = pytest.mark.parametrize("text", [CLIP_STATES, OWN_ENCODER], ids=lambda c: c.kind)
NONE, ALL = torch.zeros(B, dtype=torch.bool), torch.ones(B, dtype=torch.bool)


def network(text: FrozenTextConfig | CaptionEncoderConfig = CLIP_STATES) -> AutoregressiveNetwork:
    torch.manual_seed(0)
    built = AutoregressiveNetwork(
        AutoregressiveNetworkConfig(
            embedding=D,
            components=K,
            buckets=BUCKETS,
            text=text,
            transformer=TransformerConfig(width=32, depth=2, heads=4),
        )
    )
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.double().eval().requires_grad_(False)


def tokens_of(seed: int = 0) -> Tensor:
    return torch.randint(BUCKETS, (B, K), generator=torch.Generator().manual_seed(seed))


def words() -> TextFeatures:
    text = text_of(batch_of(B))
    return replace(text, embedding=text.embedding.double(), states=text.states.double())


@BOTH
def test_a_token_changes_only_what_comes_after_it(text: CaptionEncoderConfig) -> None:
    net, tokens = network(text), tokens_of()
    before = net(tokens, words(), NONE)
    assert before.shape == (B, K + 1, BUCKETS)
    for place in range(K):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % BUCKETS
        difference = (net(changed, words(), NONE) - before).abs().amax(dim=(0, 2))
        assert difference[: place + 1].max() < 1e-12, "the tokens up to this one"
        assert difference[place + 1 :].min() > 1e-4, "all after it"


@BOTH
def test_a_network_that_remembers_writes_what_the_whole_sequence_says(
    text: CaptionEncoderConfig,
) -> None:
    net, tokens = network(text), tokens_of()
    dropped = torch.tensor([False, True, False])
    whole = net(tokens, words(), dropped).float()
    writing = Writing(net, net.condition(words(), dropped))
    for place in range(K):
        torch.testing.assert_close(writing.after(tokens[:, place]), whole[:, place + 1])


def test_remembering_is_exact_in_bfloat16_as_far_as_bfloat16_goes() -> None:
    net, tokens = network().to(torch.bfloat16), tokens_of()
    text = text_of(batch_of(B))
    whole = net(tokens, text, NONE).float()
    writing = Writing(net, net.condition(text, NONE))
    found = torch.stack([writing.after(tokens[:, place]) for place in range(K)], dim=1)
    assert (found - whole[:, 1:]).abs().mean() < 0.02 * whole.std()


def test_every_real_word_matters_and_padding_does_not() -> None:
    net, tokens, text = network(), tokens_of(), words()
    before = net(tokens, text, NONE)
    for row, column in [(row, column) for row in range(B) for column in range(N)]:
        states = text.states.clone()
        states[row, column] += 1
        difference = (net(tokens, replace(text, states=states), NONE) - before).abs().amax((1, 2))
        if text.mask[row, column]:
            assert difference[row] > 1e-5
            assert difference[torch.arange(B) != row].max() == 0
        else:
            assert difference.max() == 0


def test_the_own_encoder_reads_every_token_of_the_caption() -> None:
    net, tokens, text = network(OWN_ENCODER), tokens_of(), words()
    before = net(tokens, text, NONE)
    for column in range(int(text.caption_mask[0].sum())):
        caption = text.caption.clone()
        caption[0, column] = (caption[0, column] + 1) % 50
        difference = (net(tokens, replace(text, caption=caption), NONE) - before).abs()
        assert difference[0].max() > 1e-6
        assert difference[1:].max() == 0
    other = replace(text, states=text.states + 1)
    assert torch.equal(net(tokens, other, NONE), before), "it needs no states of CLIP"


@BOTH
def test_dropped_text_is_gone_and_tokens_are_not(text: CaptionEncoderConfig) -> None:
    net, tokens, one = network(text), tokens_of(), words()
    other = one.take(torch.tensor([1, 2, 0]))
    assert torch.equal(net(tokens, one, ALL), net(tokens, other, ALL))
    assert not torch.allclose(net(tokens, one, NONE), net(tokens, other, NONE))
    assert not torch.allclose(net(tokens, one, ALL), net(tokens_of(1), one, ALL))
    text_embedding = replace(one, embedding=-one.embedding)
    assert not torch.allclose(net(tokens, one, NONE), net(tokens, text_embedding, NONE))


def test_all_weights_are_trained_and_checkpointing_changes_no_gradient() -> None:
    for text in (CLIP_STATES, OWN_ENCODER):
        net = network(text).requires_grad_(True).train()
        dropped = torch.tensor([False, True, False])
        gradients = []
        for saving in (False, True):
            net.transformer.gradient_checkpointing = saving
            net.zero_grad()
            net(tokens_of(), words(), dropped).square().mean().backward()
            gradients.append({name: p.grad.clone() for name, p in net.named_parameters()})
        for name, plain in gradients[0].items():
            assert plain.abs().max() > 0, name
            torch.testing.assert_close(gradients[1][name], plain, msg=name)


def test_the_papers_size() -> None:
    """Table 3: a text encoder of 1.21 billion and a decoder of 0.80 billion (§1.3)."""
    with torch.device("meta"):
        net = AutoregressiveNetwork(AutoregressiveNetworkConfig())
    assert net.encoder is not None

    def billions(module: torch.nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e9

    assert round(billions(net.encoder.transformer), 2) == 1.21
    assert round(billions(net.transformer), 2) == 0.80
    assert len(net.positions) <= 384
    config = net.config
    assert config.transformer.width / config.transformer.heads == 64
