"""The diffusion prior as a stage: conditioning, candidates, Analytic-DPM (§1.4, §4.4, §8.7-8)."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from unclip.config import Config
from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.sampling import SamplingOptions
from unclip.errors import CheckpointError, DataError, OptionError
from unclip.nn.transformer import TransformerConfig
from unclip.prior.diffusion_prior import (
    SAMPLING,
    DiffusionPrior,
    DiffusionPriorConfig,
    nearest_text,
)
from unclip.prior.network import PriorNetworkConfig
from unclip.randomness import Randomness
from unclip.types import Batch, TextFeatures, finish

D, F, N = 16, 12, 8
FEW = SAMPLING.model_copy(update={"steps": 6})
DDIM = SAMPLING.model_copy(update={"sampler": "ddim", "steps": 12})
NETWORK = PriorNetworkConfig(
    embedding=D,
    text_width=F,
    context=N,
    transformer=TransformerConfig(width=48, depth=2, heads=3),
)
SMALL = DiffusionPriorConfig(network=NETWORK)


def varied(config: Config, **changes: Any) -> Any:
    return config.model_copy(update=changes)


def units(*shape: int, seed: int) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(numbers, dim=-1)


def batch_of(b: int, d: int = D) -> Batch:
    text = TextFeatures(
        embedding=units(b, d, seed=1),
        states=units(b, N, F, seed=2) * F**0.5,
        mask=torch.arange(N) < 2 + torch.arange(b)[:, None] % (N - 1),
        caption=torch.zeros(b, 0, dtype=torch.long),
        caption_mask=torch.zeros(b, 0, dtype=torch.bool),
    )
    keys = tuple(f"sample {i}" for i in range(b))
    return Batch(keys, text=text, image_embedding=units(b, d, seed=3))


def prior(config: DiffusionPriorConfig = SMALL, *, measured: bool = True) -> DiffusionPrior:
    torch.manual_seed(0)
    built = DiffusionPrior(config).eval()
    if measured:
        built.posterior.get_buffer("mse").fill_(0.05)
    return built


def text_of(batch: Batch) -> TextFeatures:
    assert batch.text is not None
    return batch.text


class Recorder(torch.nn.Module):
    """A network that predicts zeros and keeps what it was asked, with the text each time."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.config = varied(network.config, causal=False)
        self.out, self.unconditional = network.out, network.unconditional
        self.calls: list[tuple[Tensor, Tensor, TextFeatures, Tensor]] = []

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures, dropped: Tensor) -> Tensor:
        self.calls.append((x_t, t, text, dropped))
        return torch.zeros_like(x_t)


class GaussianDenoiser(Recorder):
    """The exact E[x0 | x_t] of components that are normal with this standard deviation."""

    def __init__(self, stage: DiffusionPrior, std: float) -> None:
        super().__init__(stage.network)
        self.alpha_bar, self.variance = stage.process.schedule.alpha_bar, std**2

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures, dropped: Tensor) -> Tensor:
        alpha_bar = self.alpha_bar[t].float()[:, None]
        return alpha_bar.sqrt() * self.variance / (alpha_bar * self.variance + 1 - alpha_bar) * x_t


def test_text_is_dropped_from_a_tenth_of_the_samples_and_noise_never() -> None:
    stage, b = prior(), 100_000
    stage.network = recorder = Recorder(stage.network)
    one = batch_of(1)
    everyone = torch.zeros(b, dtype=torch.long)
    assert one.image_embedding is not None
    batch = Batch(("sample",) * b, text=text_of(one).take(everyone))
    batch = replace(batch, image_embedding=one.image_embedding[everyone])
    stage(batch, Randomness.for_step(0, 0, 0, b))
    x_t, t, text, dropped = recorder.calls[0]
    assert dropped.float().mean() == pytest.approx(0.1, abs=0.004)
    assert text is batch.text
    # Whether text is hidden is independent of the noise level and of the noise.
    assert t[dropped].float().mean() == pytest.approx(499.5, abs=15)
    assert x_t[dropped].std() == pytest.approx(x_t[~dropped].std().item(), rel=0.02)


def test_the_loss_is_that_of_the_clean_embedding() -> None:
    stage, batch = prior(), batch_of(4)
    stage.network = Recorder(stage.network)
    losses = stage(batch, Randomness([5, 6, 7, 8]))
    # Predicting zeros costs the mean square of a scaled unit vector.
    assert losses["loss"] == pytest.approx(0.5375**2, rel=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_draws_are_so_many_samples_of_each_caption(causal: bool) -> None:
    network = varied(NETWORK, causal=causal)
    stage, batch = prior(varied(SMALL, network=network)), batch_of(4)
    one = prior(varied(SMALL, network=network))
    three = prior(varied(SMALL, network=network, draws=3))
    three.load_state_dict(stage.state_dict())
    one.load_state_dict(stage.state_dict())
    streams = Randomness([5, 6, 7, 8])
    loss = three(batch, streams)["loss"]
    loss.backward()
    # The same, each draw by itself: its caption is hidden where the first draw's is.
    streams = Randomness([5, 6, 7, 8])
    dropped = streams.uniform() < SMALL.text_drop
    total = 0.0
    x0 = one.space.encode(batch.image_embedding)
    for stream in (streams, streams.split("draw 1"), streams.split("draw 2")):
        t = stream.integers(1000)
        x_t = one.process.add_noise(x0, t, stream.normal(D))
        total += (one.network(x_t, t, text_of(batch), dropped) - x0).square().mean() / 3
    total.backward()
    torch.testing.assert_close(loss, total)
    for ours, theirs in zip(three.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_overfits_one_batch_and_then_samples_it() -> None:
    stage, batch = prior().train(), batch_of(8)
    optimiser = torch.optim.Adam(stage.parameters(), lr=2e-3)

    def loss_at(seed: int) -> Tensor:
        return stage(batch, Randomness([seed + i for i in range(8)]))["loss"]

    initial = loss_at(0).item()
    for _ in range(120):
        optimiser.zero_grad()
        loss_at(0).backward()
        optimiser.step()
    assert loss_at(0).item() < 0.02 * initial
    for step in range(150):
        optimiser.zero_grad()
        loss_at(100 * step).backward()
        optimiser.step()
    sampled = finish(stage.eval().sample(text_of(batch), DDIM, Randomness(range(8))))
    assert torch.cosine_similarity(sampled, batch.image_embedding).min() > 0.9


@pytest.mark.parametrize("steps", [10, 25])
def test_analytic_variance_reproduces_the_spread_of_the_data(steps: int) -> None:
    std, b, d = 0.3, 1024, 8
    config = varied(SMALL, network=varied(NETWORK, embedding=d), renormalise=False)

    def spread(stage: DiffusionPrior) -> float:
        options = varied(SAMPLING, steps=steps)
        text = text_of(batch_of(b, d))
        sampled = finish(stage.sample(text, options, Randomness(range(b)), candidates=1))
        return stage.space.encode(sampled).std().item()

    stage = prior(config, measured=False)
    stage.network = GaussianDenoiser(stage, std)
    data = torch.randn(4, b, d, generator=torch.Generator().manual_seed(4)) * std
    held_out = [replace(batch_of(b, d), image_embedding=stage.space.decode(x)) for x in data]
    stage.measure_posterior(held_out)
    alpha_bar = stage.process.schedule.alpha_bar
    exact = std**2 * (1 - alpha_bar) / (alpha_bar * std**2 + 1 - alpha_bar)
    measured = stage.posterior.get_buffer("mse").double()
    torch.testing.assert_close(measured[1:], exact[1:], rtol=0.15, atol=1e-4)
    assert spread(stage) == pytest.approx(std, rel=0.02)

    plain = prior(varied(config, diffusion=DiffusionConfig(target="x0", variance="fixed_small")))
    plain.network = GaussianDenoiser(plain, std)
    assert spread(plain) < 0.95 * std


def test_the_pick_is_never_below_a_rejected_candidate() -> None:
    stage, text = prior(), text_of(batch_of(5))
    sampling = stage.sample(text, FEW, Randomness(range(5)), candidates=4)
    steps = []
    while True:
        try:
            steps.append(next(sampling))
        except StopIteration as stop:
            picked = stop.value
            break
    assert [(step.stage, step.index, step.total) for step in steps] == [
        ("prior", index, 6) for index in range(6)
    ]
    drawn = torch.nn.functional.normalize(steps[-1].sample.unflatten(0, (4, 5)), dim=-1)
    products = (drawn * text.embedding).sum(-1)
    chosen = (picked * text.embedding).sum(-1)
    assert products.std(0).min() > 1e-3, "candidates must differ"
    torch.testing.assert_close(chosen, products.max(0).values)


def test_nearest_text_picks_for_each_caption() -> None:
    text = units(3, D, seed=1)
    candidates = units(4, 3, D, seed=2)
    for row, best in enumerate([2, 0, 3]):
        candidates[best, row] = text[row]
    assert torch.equal(nearest_text(candidates, text), text)


def test_more_candidates_leave_the_first_as_they_were() -> None:
    stage, text = prior(), text_of(batch_of(3))
    products = [
        (finish(stage.sample(text, FEW, Randomness([1, 2, 3]), n)) * text.embedding).sum(-1)
        for n in (1, 2, 3, 4)
    ]
    gains = torch.stack(products).diff(dim=0)
    assert gains.min() > -1e-6
    assert gains.max() > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_embedding_depends_neither_on_batch_size_nor_on_order(guidance: float) -> None:
    stage, text = prior(), text_of(batch_of(4))
    options = varied(FEW, guidance=guidance)
    together = finish(stage.sample(text, options, Randomness([10, 11, 12, 13])))
    order = torch.tensor([2, 0, 3, 1])
    shuffled = finish(stage.sample(text.take(order), options, Randomness([12, 10, 13, 11])))
    torch.testing.assert_close(shuffled, together[order], rtol=0, atol=1e-5)
    alone = finish(stage.sample(text.take(order[:1]), options, Randomness([12])))
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)


def test_the_callers_tensors_are_left_alone() -> None:
    stage, batch, before = prior(), batch_of(3), batch_of(3)
    stage(batch, Randomness([1, 2, 3]))
    finish(stage.sample(text_of(batch), varied(FEW, guidance=2.0), Randomness([1, 2, 3])))
    stage.measure_posterior([batch])
    assert torch.equal(batch.image_embedding, before.image_embedding)
    for name in ("embedding", "states", "mask"):
        assert torch.equal(getattr(batch.text, name), getattr(before.text, name)), name


def test_guidance_compares_text_and_no_text_at_the_same_noise() -> None:
    stage, text = prior(), text_of(batch_of(3))
    stage.network = recorder = Recorder(stage.network)
    finish(stage.sample(text, FEW, Randomness([1, 2, 3]), candidates=2))
    assert all(not dropped.any() and len(x) == 6 for x, _, _, dropped in recorder.calls)
    recorder.calls.clear()
    finish(stage.sample(text, varied(FEW, guidance=4.0), Randomness([1, 2, 3]), candidates=2))
    assert len(recorder.calls) == 6, "both passes in one batch"
    for x_t, _, both, dropped in recorder.calls:
        assert dropped.tolist() == [False] * 6 + [True] * 6
        assert torch.equal(x_t[:6], x_t[6:])
        assert torch.equal(both.states[:6], both.states[6:])


def test_guidance_mixes_predictions_of_x0() -> None:
    stage, text = prior(), text_of(batch_of(2))
    x_t, t = units(2, D, seed=9), torch.tensor([300, 300])
    none = torch.zeros(2, dtype=torch.bool)
    with torch.no_grad():
        with_text, without = (stage.network(x_t, t, text, drop) for drop in (none, ~none))
    for scale in (0.0, 1.0, 4.0):
        expected = without + scale * (with_text - without)
        got = stage._denoiser(text, scale)(x_t, t)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_samples_have_unit_length_unless_asked_otherwise() -> None:
    text = text_of(batch_of(2))
    unit = finish(prior().sample(text, FEW, Randomness([1, 2]), 1))
    raw = finish(prior(varied(SMALL, renormalise=False)).sample(text, FEW, Randomness([1, 2]), 1))
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(2))
    assert (raw.norm(dim=-1) - 1).abs().min() > 1e-3
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), unit)


def test_a_standardised_prior_trains_and_samples() -> None:
    stage, batch = prior(varied(SMALL, scaling="standardised", renormalise=False)), batch_of(6)
    with pytest.raises(CheckpointError, match="no embedding statistics"):
        stage(batch, Randomness(range(6)))
    assert batch.image_embedding is not None
    stage.space.measure(batch.image_embedding)
    stage.network = Recorder(stage.network)
    # Zeros in the standardised space are the mean, and cost the dimensions' variance: 1.
    loss = stage(batch, Randomness(range(6)))["loss"]
    assert loss == pytest.approx(5 / 6, rel=1e-4)
    sampled = finish(stage.sample(text_of(batch), FEW, Randomness(range(6))))
    torch.testing.assert_close(sampled, batch.image_embedding.mean(0).expand(6, -1))


def test_what_is_measured_travels_with_the_weights() -> None:
    stage, other = prior(measured=False), prior(measured=False)
    assert not stage.posterior.measured
    stage.measure_posterior([batch_of(8), batch_of(4)])
    assert stage.posterior.measured
    other.load_state_dict(stage.state_dict())
    text = text_of(batch_of(2))
    expected, got = (finish(s.sample(text, FEW, Randomness([1, 2]))) for s in (stage, other))
    assert torch.equal(expected, got)


def test_sampling_names_what_was_never_measured_or_stored() -> None:
    text = text_of(batch_of(1))
    unmeasured = prior(measured=False)
    with pytest.raises(CheckpointError, match="measure_posterior"):
        finish(unmeasured.sample(text, FEW, Randomness([1])))
    finish(unmeasured.sample(text, DDIM, Randomness([1])))
    with pytest.raises(DataError, match="no held-out batch"):
        unmeasured.measure_posterior([])
    empty = prior(varied(SMALL, network=varied(NETWORK, unconditional="stored")))
    finish(empty.sample(text, FEW, Randomness([1])))
    with pytest.raises(CheckpointError, match="empty prompt"):
        finish(empty.sample(text, varied(FEW, guidance=2.0), Randomness([1])))
    with pytest.raises(OptionError, match="candidates must be 1 or more, not 0"):
        finish(prior().sample(text, FEW, Randomness([1]), candidates=0))


def test_bfloat16_weights_sample_in_float32() -> None:
    stage, text = prior(), text_of(batch_of(2))
    expected = finish(stage.sample(text, FEW, Randomness([1, 2]), 1))
    stage.to(torch.bfloat16)
    assert stage.posterior.get_buffer("mse").dtype == torch.float32
    sampled = finish(stage.sample(text, FEW, Randomness([1, 2]), 1))
    assert sampled.dtype == torch.float32
    assert torch.cosine_similarity(sampled, expected).min() > 0.99


def test_options_of_the_paper() -> None:
    assert SamplingOptions(steps=64, spacing="strided", clip="none") == SAMPLING
    config = DiffusionPriorConfig()
    assert config.diffusion.variance == "analytic"
    assert (config.diffusion.target, config.diffusion.schedule) == ("x0", "cosine")
    assert DiffusionPriorConfig.parse(config.model_dump(mode="json"), source="test") == config


@pytest.mark.parametrize("changes", [{"start": 0.5}, {"skip": 1}])
def test_sampling_begins_at_pure_noise(changes: dict) -> None:
    batch = batch_of(1)
    with pytest.raises(OptionError, match="pure noise"):
        finish(prior().sample(text_of(batch), varied(DDIM, **changes), Randomness([0])))
