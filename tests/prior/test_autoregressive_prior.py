"""The autoregressive prior as a stage: losses, drawing, guidance, the dot token (§1.3, §8.9)."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from prior_batches import D, F, batch_of, text_of, units
from torch import Tensor

from unclip.errors import CheckpointError, OptionError
from unclip.nn.transformer import TransformerConfig
from unclip.prior.autoregressive import (
    AutoregressivePrior,
    AutoregressivePriorConfig,
    _next,
    draw,
)
from unclip.prior.autoregressive_network import (
    AutoregressiveNetworkConfig,
    FrozenTextConfig,
    Writing,
)
from unclip.prior.options import PriorSampling
from unclip.randomness import Randomness
from unclip.types import Batch, finish

K, BUCKETS = 6, 16
CONFIG = AutoregressivePriorConfig(
    network=AutoregressiveNetworkConfig(
        embedding=D,
        components=K,
        buckets=BUCKETS,
        text=FrozenTextConfig(width=F),
        transformer=TransformerConfig(width=32, depth=2, heads=2),
    )
)
PLAIN = PriorSampling()


def prior(*, fitted: bool = True) -> AutoregressivePrior:
    torch.manual_seed(0)
    built = AutoregressivePrior(CONFIG).eval()
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    if fitted:
        built.codec.fit([batch_of(1000)])
    return built


def image_of(batch: Batch) -> Tensor:
    assert batch.image_embedding is not None
    return batch.image_embedding


def steps_of(sampling: Any) -> tuple[list, Tensor]:
    steps = []
    while True:
        try:
            steps.append(next(sampling))
        except StopIteration as stop:
            return steps, stop.value


class Scripted(torch.nn.Module):
    """A network whose logits are the same for every sample."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits, self.seen = logits, []

    def forward(self, tokens: Tensor, text: Any, dropped: Tensor) -> Tensor:
        self.seen.append(dropped)
        return self.logits.expand(len(tokens), -1, -1)


class Blank(Writing):
    """Finds every token equally likely, and keeps what it was given."""

    def __init__(self) -> None:
        self.tokens: list[Tensor] = []

    def after(self, token: Tensor) -> Tensor:
        self.tokens.append(token)
        return torch.zeros(len(token), BUCKETS)


def test_the_loss_is_the_cross_entropy_of_the_codecs_tokens() -> None:
    stage, batch = prior(), batch_of(4)
    logits = torch.randn(1, K + 1, BUCKETS, generator=torch.Generator().manual_seed(1))
    stage.network = Scripted(logits)
    losses = stage(batch, Randomness(range(4)))
    probabilities = logits[0].softmax(dim=-1)
    text = text_of(batch)
    expected = torch.zeros(K + 1)
    for row in range(4):
        dot = int(stage.codec.encode_dot(image_of(batch), text.embedding)[row])
        codes = stage.codec.encode(image_of(batch))[row].tolist()
        for place, token in enumerate([dot, *codes]):
            expected[place] -= probabilities[place, token].log() / 4
    assert losses["loss"].item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert losses["dot"].item() == pytest.approx(expected[0].item(), rel=1e-5)
    assert losses["codes"].item() == pytest.approx(expected[1:].mean().item(), rel=1e-5)


def test_an_untrained_prior_is_as_bad_as_guessing() -> None:
    torch.manual_seed(0)
    stage = AutoregressivePrior(CONFIG)
    stage.codec.fit([batch_of(1000)])
    loss = stage(batch_of(200), Randomness(range(200)))["loss"].item()
    assert loss == pytest.approx(math.log(BUCKETS), abs=0.4)


def test_text_is_dropped_from_a_tenth_of_the_samples() -> None:
    stage, b = prior(), 100_000
    logits = torch.zeros(1, K + 1, BUCKETS)
    stage.network = scripted = Scripted(logits)
    one = batch_of(1)
    everyone = torch.zeros(b, dtype=torch.long)
    batch = Batch(("x",) * b, text=text_of(one).take(everyone))
    stage(replace(batch, image_embedding=image_of(one)[everyone]), Randomness.for_step(0, 0, 0, b))
    assert scripted.seen[0].float().mean().item() == pytest.approx(0.1, abs=0.004)


def test_overfits_a_batch_and_then_writes_it() -> None:
    torch.manual_seed(0)
    stage, batch = AutoregressivePrior(CONFIG), batch_of(8)
    stage.codec.fit([batch_of(1000)])
    # The largest z_i·z_t there is, so that a high percentile asks for what training showed.
    text = replace(text_of(batch), embedding=image_of(batch))
    batch = replace(batch, text=text)
    optimiser = torch.optim.Adam(stage.parameters(), lr=5e-3)
    for step in range(80):
        optimiser.zero_grad()
        losses = stage(batch, Randomness([100 * step + i for i in range(8)]))
        losses["loss"].backward()
        optimiser.step()
    options = PriorSampling(dot_percentile=0.99, temperature=0.5)
    sampled = finish(stage.eval().sample(text, options, Randomness(range(8))))
    wanted = torch.nn.functional.normalize(stage.codec.decode(stage.codec.encode(image_of(batch))))
    assert torch.cosine_similarity(sampled, wanted).min() > 0.9


def test_drawing_follows_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.0, 0.2, 0.3]))
    n = 100_000
    drawn = draw(logits.expand(n, -1), torch.rand(n, generator=torch.Generator().manual_seed(0)))
    shares = torch.bincount(drawn, minlength=4) / n
    torch.testing.assert_close(shares, logits.exp(), rtol=0, atol=0.006)
    assert shares[1] == 0
    ends = torch.tensor([0.0, 0.499, 0.501, 0.699, 0.701, 1 - 2**-24])
    assert draw(logits.expand(6, -1), ends).tolist() == [0, 0, 2, 2, 3, 3]


@pytest.mark.parametrize(("percentile", "lowest"), [(0.0, 0), (0.5, 8), (0.7, 11), (0.99, 15)])
def test_the_dot_token_is_drawn_from_the_upper_part_alone(
    percentile: float, lowest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, b = prior(), 2000
    blank = Blank()
    monkeypatch.setattr(stage, "_start", lambda text, guidance: blank)
    text = text_of(batch_of(1)).take(torch.zeros(b, dtype=torch.long))
    finish(stage.sample(text, PriorSampling(dot_percentile=percentile), Randomness(range(b))))
    counts = torch.bincount(blank.tokens[0], minlength=BUCKETS)
    assert counts[:lowest].sum() == 0
    share = b / (BUCKETS - lowest)
    assert (counts[lowest:] - share).abs().max() < 5 * share**0.5, "and there from all alike"
    assert all(int(token.min()) == 0 for token in blank.tokens[1:]), "the codes from everywhere"


def test_guidance_mixes_logits() -> None:
    stage, text = prior(), text_of(batch_of(3))
    dot = torch.tensor([9, 10, 11])
    none = torch.zeros(3, dtype=torch.bool)
    with torch.no_grad():
        given, free = (stage.network(dot[:, None], text, drop)[:, 1] for drop in (none, ~none))
    for scale in (0.0, 1.0, 3.0):
        found = _next(stage._start(text, scale), dot, scale)
        torch.testing.assert_close(found, free + scale * (given - free), atol=1e-5, rtol=1e-5)
    rows = [len(stage._start(text, scale).condition.mask) for scale in (1.0, 3.0)]
    assert rows == [3, 6], "off costs no second pass"


def test_steps_build_the_embedding_up() -> None:
    stage, text = prior(), text_of(batch_of(3))
    steps, embedding = steps_of(stage.sample(text, PLAIN, Randomness([1, 2, 3])))
    assert [(step.stage, step.index, step.total) for step in steps] == [
        ("prior", place, K) for place in range(K)
    ]
    codes = stage.codec.encode(steps[-1].sample)
    for place, step in enumerate(steps):
        torch.testing.assert_close(step.sample, stage.codec.decode(codes[:, : place + 1]))
    torch.testing.assert_close(embedding, torch.nn.functional.normalize(steps[-1].sample))
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(3))
    assert embedding.dtype == torch.float32


def test_temperature_narrows_the_choice() -> None:
    stage, text = prior(), text_of(batch_of(1)).take(torch.zeros(64, dtype=torch.long))
    torch.nn.init.normal_(stage.network.out.weight, std=1.0)

    def spread(temperature: float) -> float:
        options = PriorSampling(temperature=temperature, dot_percentile=0.95)
        return finish(stage.sample(text, options, Randomness(range(64)))).var(0).sum().item()

    hot, usual, cold = (spread(temperature) for temperature in (3.0, 1.0, 0.01))
    assert hot > usual
    assert cold < 1e-3 * usual


def test_the_pick_is_never_below_a_rejected_candidate() -> None:
    stage, text = prior(), text_of(batch_of(5))
    steps, picked = steps_of(stage.sample(text, PLAIN, Randomness(range(5)), candidates=4))
    drawn = torch.nn.functional.normalize(steps[-1].sample.unflatten(0, (4, 5)), dim=-1)
    products = (drawn * text.embedding).sum(-1)
    assert products.std(0).min() > 1e-3, "candidates must differ"
    torch.testing.assert_close((picked * text.embedding).sum(-1), products.max(0).values)
    first = finish(stage.sample(text, PLAIN, Randomness(range(5)), candidates=1))
    torch.testing.assert_close(first, drawn[0])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_embedding_depends_neither_on_batch_size_nor_on_order(guidance: float) -> None:
    stage, text = prior(), text_of(batch_of(4))
    options = PriorSampling(guidance=guidance)
    together = finish(stage.sample(text, options, Randomness([10, 11, 12, 13])))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = finish(stage.sample(text.take(order), options, Randomness([12, 10, 13, 11])))
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    alone = finish(stage.sample(text.take(order[:1]), options, Randomness([12])))
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)
    repeated = finish(stage.sample(text, options, Randomness([10, 11, 12, 13])))
    assert torch.equal(repeated, together)


def test_closing_a_sampler_ends_it_and_leaves_gradients_as_they_were() -> None:
    stage, text = prior(), text_of(batch_of(1))
    sampling = stage.sample(text, PLAIN, Randomness([1]))
    assert not next(sampling).sample.requires_grad
    assert torch.is_grad_enabled()
    sampling.close()


def test_a_trained_prior_travels_with_its_codec() -> None:
    stage, other = prior(), prior(fitted=False)
    other.load_state_dict(stage.state_dict())
    text = text_of(batch_of(2))
    expected, got = (finish(s.sample(text, PLAIN, Randomness([1, 2]))) for s in (stage, other))
    assert torch.equal(expected, got)


def test_bfloat16_weights_keep_an_exact_codec() -> None:
    stage, text = prior().to(torch.bfloat16), text_of(batch_of(2))
    sampled = finish(stage.sample(text, PriorSampling(guidance=2.0), Randomness([1, 2])))
    assert sampled.dtype == torch.float32
    codes = stage.codec.encode(units(9, D, seed=1))
    assert torch.equal(codes, prior().codec.encode(units(9, D, seed=1)))


def test_what_cannot_be_is_named() -> None:
    text = text_of(batch_of(1))
    unfitted = prior(fitted=False)
    with pytest.raises(CheckpointError, match=r"no codec yet; call codec\.fit"):
        finish(unfitted.sample(text, PLAIN, Randomness([1])))
    with pytest.raises(CheckpointError, match="no codec yet"):
        unfitted(batch_of(2), Randomness([1, 2]))
    with pytest.raises(OptionError, match="candidates must be 1 or more, not 0"):
        finish(prior().sample(text, PLAIN, Randomness([1]), candidates=0))
    config = AutoregressivePriorConfig()
    assert AutoregressivePriorConfig.parse(config.model_dump(mode="json"), source="test") == config
