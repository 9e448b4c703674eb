"""The prior of one pass. Its arithmetic is proven in tests/parity/test_parity_eclipse.py."""

import math

import pytest
import torch

from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.nn.transformer import TransformerConfig
from unclip.prior.kinds import build_prior, parse_prior
from unclip.prior.network import PriorNetworkConfig
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig
from unclip.randomness import InjectedNoise, Randomness
from unclip.types import Batch, Stage, TextFeatures, finish

NETWORK = PriorNetworkConfig(
    embedding=8,
    text_width=8,
    context=5,
    transformer=TransformerConfig(width=16, depth=2, heads=2),
    timestep=False,
    unconditional="none",
)


def captions(count: int, seed: int = 0) -> TextFeatures:
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(count, 8, generator=generator)
    ids = torch.zeros(count, 0, dtype=torch.int64)
    return TextFeatures(
        embedding / embedding.norm(dim=-1, keepdim=True),
        torch.randn(count, 5, 8, generator=generator),
        torch.arange(5).expand(count, -1) < 3,
        ids,
        ids.bool(),
    )


def prior(**changes: object) -> OnePassPrior:
    torch.manual_seed(0)
    return OnePassPrior(OnePassPriorConfig(network=NETWORK, **changes))


def test_it_is_a_kind_of_prior() -> None:
    config = OnePassPriorConfig(network=NETWORK)
    again = parse_prior(config.model_dump(mode="json"), source="test")
    assert again == config
    assert isinstance(build_prior(again), OnePassPrior)
    assert isinstance(build_prior(again), Stage)


def test_one_evaluation_and_unit_length() -> None:
    stage, text = prior(), captions(3)
    calls = []
    stage.network.register_forward_hook(lambda *_: calls.append(1))
    sampling = stage.sample(text, SamplingOptions(), Randomness([1, 2, 3]), candidates=4)
    assert next(sampling).sample.shape == (12, 8)
    z_i = finish(sampling)
    assert len(calls) == 1
    torch.testing.assert_close(z_i.norm(dim=-1), torch.ones(3))


def test_more_candidates_keep_the_earlier_ones() -> None:
    stage, text = prior(), captions(2)

    def candidates(count: int) -> torch.Tensor:
        return next(stage.sample(text, SamplingOptions(), Randomness([1, 2]), count)).sample

    torch.testing.assert_close(candidates(3)[:4], candidates(2))


def test_the_loss_is_squared_error_and_contrast() -> None:
    stage, text = prior(scaling="none", contrastive=0.5, temperature=1.0), captions(2)
    torch.nn.init.zeros_(stage.network.out.weight)
    with torch.no_grad():
        stage.network.out.bias.copy_(text.embedding[0])
    truth = torch.zeros(2, 8)
    batch = Batch(keys=("a", "b"), text=text, image_embedding=truth)
    losses = stage(batch, InjectedNoise([torch.randn(2, 8)], batch=2))
    # Both predictions are the first caption's embedding: cosines 1 and c with the captions.
    c = float(text.embedding[0] @ text.embedding[1])
    contrast = (math.log(1 + math.exp(c - 1)) + math.log(1 + math.exp(1 - c))) / 2
    assert float(losses["mse"]) == pytest.approx(1 / 8, rel=1e-5)
    assert float(losses["contrast"]) == pytest.approx(contrast, rel=1e-5)
    assert losses["loss"].item() == pytest.approx(1 / 8 + contrast / 2, rel=1e-5)


def test_it_learns() -> None:
    stage, text = prior(contrastive=0.0), captions(16)
    truth = text.embedding.flip(-1)
    batch = Batch(keys=("x",) * 16, text=text, image_embedding=truth)
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    losses = []
    for step in range(120):
        loss = stage(batch, Randomness.for_step(0, step, 0, 16))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    z_i = finish(stage.eval().sample(text, SamplingOptions(), Randomness(range(16))))
    assert (z_i * truth).sum(-1).mean() > 0.7


def test_what_one_pass_cannot_do() -> None:
    for guidance, candidates in ((2.0, 1), (1.0, 0)):
        options = SamplingOptions(guidance=guidance)
        with pytest.raises(OptionError):
            next(prior().sample(captions(1), options, Randomness([0]), candidates))
    with pytest.raises(CheckpointError, match="statistics"):
        next(prior(scaling="standardised").sample(captions(1), SamplingOptions(), Randomness([0])))


@pytest.mark.parametrize("change", [{"timestep": True}, {"unconditional": "learned"}])
def test_networks_of_another_kind(change: dict) -> None:
    network = NETWORK.updated(change)
    with pytest.raises(ValueError, match="one pass knows neither"):
        OnePassPriorConfig(network=network)
