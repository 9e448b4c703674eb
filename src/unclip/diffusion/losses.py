"""Training losses (§4.3, §4.5): mean squared error, and the bound that trains the variance."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unclip.diffusion.process import Network, Process
from unclip.randomness import Randomness
from unclip.types import Losses


def diffusion_loss(
    process: Process, network: Network, x0: Float[Tensor, "b ..."], randomness: Randomness
) -> Losses:
    """Loss of one noise level per sample, t drawn uniformly and then the noise.

    Returns:
        ``loss`` to minimise and, unweighted, ``mse`` of the target; with a learned variance also
        ``vlb`` in bits per dimension, already multiplied by T so that it estimates the whole sum.
    """
    x0 = x0 if x0.dtype == torch.float64 else x0.float()
    t = randomness.integers(process.config.steps).to(x0.device)
    noise = randomness.normal(*x0.shape[1:]).to(x0)
    x_t = process.add_noise(x0, t, noise)
    output = network(x_t, t)
    predicted, fraction = process.split(output, x_t)
    target = process.training_target(x0, noise, t)
    mse = _mean_flat((predicted - target).square())
    loss = (loss_weight(process, t, mse) * mse).mean()
    losses = {"loss": loss, "mse": mse.mean().detach()}
    if fraction is not None:
        config = process.config
        vlb = variational_bound(process, output, x0, x_t, t).mean() * config.steps
        losses["loss"] = loss + config.vlb_weight * vlb
        losses["vlb"] = vlb.detach()
    return losses


def loss_weight(
    process: Process, t: Int[Tensor, " b"], like: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Factor of each sample's squared error: 1, or min-SNR-γ (§4.5).

    min(SNR, γ) is the weight of an x0 error; the same error in noise is SNR times as large and
    in v d² SNR + 1 times, so those are divided by that: the three targets weigh alike.
    """
    if process.config.weighting == "none":
        return torch.ones_like(like)
    snr = process.lookup("snr", t, like)
    weight = snr.clamp(max=process.config.min_snr_gamma)
    match process.config.target:
        case "noise":
            return weight / snr
        case "x0":
            return weight
        case "v":
            return weight / (process.config.data_scale**2 * snr + 1)


def variational_bound(
    process: Process,
    output: Float[Tensor, "b ..."],
    x0: Float[Tensor, "b ..."],
    x_t: Float[Tensor, "b ..."],
    t: Int[Tensor, " b"],
) -> Float[Tensor, " b"]:
    """One term of L_vlb for each sample, in bits per dimension, of a learned-variance output.

    KL(q(x_{t−1} | x_t, x0) ‖ p(x_{t−1} | x_t)); at t = 0 the negative log-likelihood of x0 as
    8-bit values in [−1, 1]. The mean passes no gradient: the bound trains the variance only
    (§4.3).
    """
    prediction = process.interpret(output, x_t, t)
    assert prediction.variance_fraction is not None, "only a learned variance has a bound to train"
    x0_scale = process.lookup("posterior_x0_scale", t, x_t)
    x_t_scale = process.lookup("posterior_x_t_scale", t, x_t)
    low = process.lookup("log_posterior_variance", t, x_t)
    high = process.lookup("log_beta", t, x_t)
    true_mean = x0_scale * x0 + x_t_scale * x_t
    mean = (x0_scale * prediction.x0 + x_t_scale * x_t).detach()
    fraction = prediction.variance_fraction
    log_variance = fraction * high + (1 - fraction) * low
    divergence = _normal_kl(true_mean, low, mean, log_variance)
    likelihood = _discretised_nll(x0, mean, log_variance / 2)
    first = (t == 0).to(x_t.device)
    return torch.where(first, _mean_flat(likelihood), _mean_flat(divergence)) / math.log(2)


def _mean_flat(values: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    return values.flatten(1).mean(dim=1)


def _normal_kl(
    mean1: Tensor, log_variance1: Tensor, mean2: Tensor, log_variance2: Tensor
) -> Tensor:
    """KL of two Gaussians in nats, elementwise."""
    ratio = log_variance1 - log_variance2
    return (ratio.exp() - 1 - ratio + (mean1 - mean2).square() * (-log_variance2).exp()) / 2


def _discretised_nll(x: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """−log probability, in nats, of the bin of width 2/255 around x; the end bins are open."""
    # Mirrored to the lower tail, where float32 resolves small probabilities.
    distance = -(x - mean).abs()
    upper = torch.special.ndtr((distance + 1 / 255) / log_std.exp())
    lower = torch.special.ndtr((distance - 1 / 255) / log_std.exp())
    below = torch.special.ndtr((x - mean + 1 / 255) / log_std.exp())
    above = torch.special.ndtr((mean - x + 1 / 255) / log_std.exp())
    probability = torch.where(x < -0.999, below, torch.where(x > 0.999, above, upper - lower))
    return -probability.clamp(min=1e-12).log()
