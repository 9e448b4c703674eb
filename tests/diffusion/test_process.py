import pytest
import torch
from diffusion_oracles import wavy

from unclip.diffusion.losses import loss_weight
from unclip.diffusion.process import DiffusionConfig, Process
from unclip.errors import OptionError

TARGETS = {
    "noise": {"target": "noise"},
    "x0": {"target": "x0"},
    "v": {"target": "v"},
    "v of small data": {"target": "v", "data_scale": 0.2},
}
SCHEDULES = ["cosine", "linear"]
T_ALL = torch.tensor([0, 1, 10, 100, 500, 900, 990])


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(T_ALL), 3, 4, 5)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64).unbind()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_interpretation_inverts_the_target(target: str, schedule: str) -> None:
    process = Process(DiffusionConfig(**TARGETS[target], schedule=schedule))
    x0, noise = data()
    x_t = process.add_noise(x0, T_ALL, noise)
    read = process.interpret(process.training_target(x0, noise, T_ALL), x_t, T_ALL)
    # Dividing by alpha = 0.016 or sigma = 0.0064 costs three digits of sixteen.
    torch.testing.assert_close(read.x0, x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(read.noise, noise, rtol=0, atol=1e-11)
    as_v = Process(DiffusionConfig(target="v", schedule=schedule))
    torch.testing.assert_close(read.v, as_v.training_target(x0, noise, T_ALL), rtol=0, atol=1e-11)
    clipped = read.with_x0(read.x0.clamp(-1, 1))
    a, s = process.lookup("alpha", T_ALL, x0), process.lookup("sigma", T_ALL, x0)
    torch.testing.assert_close(a * clipped.x0 + s * clipped.noise, x_t, rtol=0, atol=1e-12)
    assert read.variance_fraction is None


@pytest.mark.parametrize("d", [0.1, 0.5, 1.0])
def test_v_is_edms_preconditioned_output(d: float) -> None:
    process = Process(DiffusionConfig(target="v", data_scale=d))
    x0, noise = data()
    x_t = process.add_noise(x0, T_ALL, noise)
    alpha, deviation = process.lookup("alpha", T_ALL, x0), process.lookup("sigma", T_ALL, x0)
    sigma = deviation / alpha
    # Karras et al., Table 1, for y + n with n of deviation sigma; their output is −v / d.
    c_skip = d**2 / (sigma**2 + d**2)
    c_out = sigma * d / (sigma**2 + d**2).sqrt()
    output = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2), dtype=x0.dtype)
    denoised = c_skip * (x_t / alpha) + c_out * (-output / d)
    torch.testing.assert_close(process.interpret(output, x_t, T_ALL).x0, denoised)


def test_v_of_vanishing_data_is_x0() -> None:
    x0, noise = data()
    small = Process(DiffusionConfig(target="v", data_scale=1e-9))
    torch.testing.assert_close(small.training_target(x0, noise, T_ALL), -x0)
    with pytest.raises(ValueError, match="data_scale"):
        DiffusionConfig(target="x0", data_scale=0.5)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_targets_weigh_alike_under_min_snr(schedule: str) -> None:
    x0, noise = data()
    wrong, _ = data()[1], None
    losses = []
    for target in TARGETS:
        config = DiffusionConfig(
            **TARGETS[target], schedule=schedule, weighting="min_snr", min_snr_gamma=5.0
        )
        process = Process(config)
        x_t = process.add_noise(x0, T_ALL, noise)
        x0_hat = x0 + 0.1 * wrong
        a, s = process.lookup("alpha", T_ALL, x0), process.lookup("sigma", T_ALL, x0)
        noise_hat = (x_t - a * x0_hat) / s
        error = process.training_target(x0_hat, noise_hat, T_ALL) - process.training_target(
            x0, noise, T_ALL
        )
        mse = error.square().flatten(1).mean(1)
        losses.append(loss_weight(process, T_ALL, mse) * mse)
        snr = process.schedule.snr[T_ALL]
        factors = {"noise": snr, "x0": torch.ones_like(snr), "v": snr + 1}
        factor = factors.get(target, 0.2**2 * snr + 1)
        plain = (0.1 * wrong).square().flatten(1).mean(1)
        torch.testing.assert_close(mse, factor * plain, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(losses[2], losses[1], rtol=1e-9, atol=0)
    capped = process.schedule.snr[T_ALL].clamp(max=5) * plain
    torch.testing.assert_close(losses[1], capped, rtol=1e-9, atol=0)


def test_learned_variance_is_split_off_once() -> None:
    process = Process(DiffusionConfig(variance="learned_range"))
    assert process.outputs == 2
    x0, noise = data()
    x_t = process.add_noise(x0, T_ALL, noise)
    output = wavy(outputs=2)(x_t, T_ALL)
    read = process.interpret(output, x_t, T_ALL)
    assert torch.equal(read.noise, output[:, :3])
    assert torch.equal(read.variance_fraction, (output[:, 3:] + 1) / 2)


def test_a_network_of_the_wrong_width_is_caught() -> None:
    process = Process(DiffusionConfig())
    x_t = torch.zeros(2, 3, 4, 4)
    with pytest.raises(AssertionError, match=r"\(2, 1, 4, 4\)"):
        process.interpret(torch.zeros(2, 1, 4, 4), x_t, torch.zeros(2, dtype=torch.int64))


def test_half_precision_outputs_are_read_in_float32() -> None:
    process = Process(DiffusionConfig())
    t = torch.tensor([999])
    read = process.interpret(torch.ones(1, 2).bfloat16(), torch.ones(1, 2), t)
    assert read.x0.dtype == torch.float32


def test_tables_made_while_sampling_serve_training() -> None:
    process = Process(DiffusionConfig())
    x0, t = torch.ones(1, 2, requires_grad=True), torch.tensor([5])
    with torch.inference_mode():
        process.add_noise(torch.ones(1, 2), t, torch.ones(1, 2))
    process.add_noise(x0, t, torch.ones(1, 2)).sum().backward()
    assert x0.grad is not None


def test_zero_terminal_snr_refuses_the_noise_target() -> None:
    with pytest.raises(OptionError, match="zero_terminal_snr needs the target 'x0' or 'v'"):
        DiffusionConfig.parse({"zero_terminal_snr": True}, source="test")
    process = Process(DiffusionConfig(zero_terminal_snr=True, target="v"))
    assert process.schedule.alpha[-1] == 0
