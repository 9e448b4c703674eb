import math

import numpy as np
import pytest
import torch
from diffusion_oracles import Prepared, noises, wavy
from scipy.stats import norm

from unclip.diffusion.losses import diffusion_loss, variational_bound
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.randomness import Randomness

STEPS = 1000


def tables(schedule: str) -> tuple[np.ndarray, np.ndarray]:
    """β and ᾱ from their definitions, in numpy."""
    if schedule == "linear":
        beta = np.linspace(1e-4, 0.02, STEPS)
    else:
        u = np.arange(STEPS + 1) / STEPS
        curve = np.cos(np.pi / 2 * (u + 0.008) / 1.008) ** 2
        beta = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return beta, np.cumprod(1 - beta)


def bound_in_bits(schedule, target, output, x0, x_t, t) -> float:
    """One term of L_vlb for one sample, by the textbook, in numpy."""
    beta, alpha_bar = tables(schedule)
    a, previous = alpha_bar[t], alpha_bar[t - 1] if t else 1.0
    guess, v = np.split(output, 2)
    x0_hat = guess if target == "x0" else (x_t - np.sqrt(1 - a) * guess) / np.sqrt(a)

    def posterior_mean(clean):
        on_clean = np.sqrt(previous) * beta[t] / (1 - a)
        return on_clean * clean + np.sqrt(1 - beta[t]) * (1 - previous) / (1 - a) * x_t

    tilde = beta * (1 - np.append(1, alpha_bar[:-1])) / (1 - alpha_bar)
    tilde[0] = tilde[1]
    log_variance = (v + 1) / 2 * np.log(beta[t]) + (1 - v) / 2 * np.log(tilde[t])
    mean, std = posterior_mean(x0_hat), np.exp(log_variance / 2)
    if t:
        true_std, true_mean = np.sqrt(tilde[t]), posterior_mean(x0)
        nats = np.log(std / true_std) - 0.5
        nats += (true_std**2 + (true_mean - mean) ** 2) / (2 * std**2)
    else:
        low = np.where(x0 < -0.999, -np.inf, x0 - 1 / 255)
        high = np.where(x0 > 0.999, np.inf, x0 + 1 / 255)
        nats = -np.log(norm.cdf(high, mean, std) - norm.cdf(low, mean, std))
    return float(np.mean(nats) / math.log(2))


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("target", ["noise", "x0"])
def test_hybrid_loss_by_the_textbook(schedule: str, target: str) -> None:
    process = Process(DiffusionConfig(schedule=schedule, target=target, variance="learned_range"))
    t = torch.tensor([0, 0, 1, 7, 300, 700, 950])
    x0, noise = noises(2, len(t), 2, 3, 3)
    x0 = (x0 / 3).clamp(-1, 1)
    x0[:2, :, 0, 0] = torch.tensor([-1.0, 1.0]).double()
    network = wavy(outputs=2)

    def near(x, t):
        # Close to the truth, so that the likelihood at t = 0 is not floored.
        x0_hat, v = network(x, t).chunk(2, dim=1)
        truth = process.training_target(x0, noise, t)
        return torch.cat([truth + 0.05 * x0_hat, v], dim=1)

    losses = diffusion_loss(process, near, x0, Prepared([noise], t))
    x_t = process.add_noise(x0, t, noise)
    output = near(x_t, t)
    bits = [
        bound_in_bits(schedule, target, *(x.flatten(1)[i].numpy() for x in (output, x0, x_t)), k)
        for i, k in enumerate(t.tolist())
    ]
    mse = (output[:, :2] - process.training_target(x0, noise, t)).square().mean()
    assert float(losses["mse"]) == pytest.approx(float(mse), rel=1e-12)
    assert float(losses["vlb"]) == pytest.approx(STEPS * np.mean(bits), rel=1e-8)
    # §4.3: MSE + 0.001 L_vlb, and L_vlb sums T = 1000 terms: the single term has factor 1.
    assert float(losses["loss"]) == pytest.approx(float(mse) + np.mean(bits), rel=1e-8)


def test_bound_is_zero_for_the_true_posterior() -> None:
    process = Process(DiffusionConfig(target="x0", variance="learned_range"))
    t = torch.tensor([1, 50, 999])
    x0, noise = noises(2, 3, 4)
    output = torch.cat([x0, -torch.ones_like(x0)], dim=1)
    x_t = process.add_noise(x0, t, noise)
    bound = variational_bound(process, output, x0, x_t, t)
    torch.testing.assert_close(bound, torch.zeros(3).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["noise", "x0", "v"])
def test_bound_passes_no_gradient_to_the_mean(target: str) -> None:
    process = Process(DiffusionConfig(target=target, variance="learned_range"))
    t = torch.tensor([0, 1, 500, 999])
    x0, noise = noises(2, 4, 3, 2, 2, dtype=torch.float32)
    x_t = process.add_noise(x0, t, noise)
    output = wavy(outputs=2)(x_t, t).requires_grad_()
    variational_bound(process, output, x0, x_t, t).sum().backward()
    assert torch.count_nonzero(output.grad[:, :3]) == 0
    assert torch.count_nonzero(output.grad[1:, 3:]) == output.grad[1:, 3:].numel()


def test_loss_is_finite_in_float32_at_every_level() -> None:
    process = Process(DiffusionConfig(variance="learned_range"))
    t = torch.arange(STEPS)
    x0, noise = noises(2, STEPS, 2, dtype=torch.float32)
    losses = diffusion_loss(process, wavy(outputs=2), x0.clamp(-1, 1), Prepared([noise], t))
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss"].dtype == torch.float32


def test_levels_are_drawn_uniformly_then_noise() -> None:
    process = Process(DiffusionConfig())
    seen = []

    def network(x, t):
        seen.append((x, t))
        return torch.zeros_like(x)

    x0 = torch.zeros(4000, 1)
    losses = diffusion_loss(process, network, x0, Randomness([3], per_stream=4000))
    x, t = seen[0]
    again = Randomness([3], per_stream=4000)
    assert torch.equal(t, again.integers(STEPS))
    assert torch.equal(x, process.lookup("sigma", t, x) * again.normal(1))
    assert abs(float(t.double().mean()) - 499.5) < 5 * 289 / math.sqrt(4000)
    # A network that always says 0 misses unit noise by 1 on average.
    assert float(losses["loss"]) == pytest.approx(1, abs=5 * math.sqrt(2 / 4000))
    assert set(losses) == {"loss", "mse"}


def test_min_snr_weighs_the_mean() -> None:
    config = DiffusionConfig(target="x0", weighting="min_snr")
    t = torch.tensor([0, 999])
    x0, noise = noises(2, 2, 3)
    losses = diffusion_loss(
        Process(config), lambda x, t: torch.zeros_like(x), x0, Prepared([noise], t)
    )
    snr = Process(config).schedule.snr[t].clamp(max=5)
    wanted = (snr * x0.square().mean(1)).mean()
    assert float(losses["loss"]) == pytest.approx(float(wanted), rel=1e-12)
    assert float(losses["mse"]) == pytest.approx(float(x0.square().mean()), rel=1e-12)
