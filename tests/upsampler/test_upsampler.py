"""The stage: no attention, any size, alignment, corruption in training only, learning, tiles."""

import itertools

import pytest
import torch
from torch import nn

from unclip.diffusion.process import DiffusionConfig
from unclip.diffusion.sampling import SamplingOptions, first_timestep
from unclip.errors import DataError, OptionError
from unclip.nn.unet import UNetConfig
from unclip.nn.unet_blocks import JointAttention
from unclip.randomness import InjectedNoise, Randomness
from unclip.types import Batch, Stage, finish
from unclip.upsampler.bsr import Bsr
from unclip.upsampler.degradation import Blur, NoCorruption
from unclip.upsampler.resize import enlarge, shrink
from unclip.upsampler.upsampler import Upsampler, UpsamplerConfig

DDIM = SamplingOptions(sampler="ddim", steps=3)


def network_config(**changes) -> UNetConfig:
    values = {
        "in_channels": 6,
        "out_channels": 3,
        "channels": 16,
        "multipliers": (1, 2),
        "depth": 1,
        "middle_attention": False,
        "groups": 4,
    }
    return UNetConfig(**(values | changes))


def build(network: UNetConfig | None = None, **changes) -> Upsampler:
    """A small upsampler whose every parameter is random, the zero-initialised ones too."""
    torch.manual_seed(0)
    values = {"low": 16, "high": 64, "training_crop": 32} | changes
    stage = Upsampler(UpsamplerConfig(network=network or network_config(), **values))
    for parameter in stage.parameters():
        if parameter.ndim < 2 or not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return stage


def batch_of(images: torch.Tensor) -> Batch:
    return Batch(keys=tuple(f"sample {i}" for i in range(len(images))), images=images)


def shapes(count: int, side: int, seed: int = 0) -> torch.Tensor:
    """Drawings: discs on coloured grounds."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.empty(count, 3, side, side)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    for image in images:
        ground, ink = torch.rand(2, 3, 1, 1, generator=generator) * 2 - 1
        cy, cx, r = (torch.rand(3, generator=generator) * side).tolist()
        inside = (x - cx) ** 2 + (y - cy) ** 2 < (0.2 * side + 0.2 * r) ** 2
        image[:] = torch.where(inside, ink, ground)
    return images


def test_it_is_a_stage_without_attention():
    stage = build()
    assert isinstance(stage, Stage)
    assert stage.needs == {"images"}
    kinds = {type(module) for module in stage.modules()}
    assert JointAttention not in kinds
    assert nn.MultiheadAttention not in kinds
    with pytest.raises(OptionError, match="no attention"):
        UpsamplerConfig.parse({"network": network_config(middle_attention=True)}, source="x")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"low": 60, "high": 256}, "multiple of low"),
        ({"training_crop": 66}, "multiple of the factor"),
        ({"training_crop": 512}, "no larger than"),
        ({"network": network_config(in_channels=3)}, "in_channels 6"),
        ({"diffusion": DiffusionConfig(variance="learned_range")}, "set network.out_channels=6"),
    ],
)
def test_impossible_configs_are_named(values, match):
    with pytest.raises(OptionError, match=match):
        UpsamplerConfig.parse({"network": network_config()} | values, source="x")


def test_config_survives_json():
    config = UpsamplerConfig(network=network_config(), corruption=Bsr(probability=0.5))
    assert UpsamplerConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "millions"),
    [
        ({"channels": 320, "depth": 3, "multipliers": (1, 2, 3, 4), "dropout": 0.1}, 730),
        ({"channels": 192, "depth": 2, "multipliers": (1, 1, 2, 2, 4, 4)}, 282),
    ],
    ids=["up256", "up1024"],
)
def test_paper_sizes(values, millions):
    with torch.device("meta"):
        stage = Upsampler(UpsamplerConfig(network=network_config(groups=32, **values)))
    assert round(sum(p.numel() for p in stage.parameters()) / 1e6) == millions


@pytest.mark.parametrize("patch", [1, 4])
def test_one_set_of_weights_trains_on_crops_and_samples_at_full_size(patch):
    stage = build(network_config(patch=patch), low=64, high=256, training_crop=64)
    losses = stage(batch_of(shapes(2, 64)), Randomness([0, 1]))
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.any() for p in stage.parameters())
    large = finish(stage.sample(shapes(1, 64), DDIM, Randomness([0])))
    assert large.shape == (1, 3, 256, 256)
    assert not large.requires_grad


@pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 21), (5, 3)])
def test_any_size_is_enlarged(height, width):
    stage = build(network_config(patch=2, multipliers=(1, 2, 2))).eval()
    image = torch.rand(1, 3, height, width) * 2 - 1
    assert finish(stage.sample(image, DDIM, Randomness([0]))).shape == (1, 3, 4 * height, 4 * width)


def seen_by(stage: Upsampler) -> list[torch.Tensor]:
    """What the network is given, call by call."""
    seen: list[torch.Tensor] = []
    stage.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    return seen


def test_input_is_noisy_image_then_enlarged_image():
    stage = build(corruption=NoCorruption())
    seen = seen_by(stage)
    image, noise = torch.rand(1, 3, 16, 16) * 2 - 1, torch.randn(1, 3, 64, 64)
    next(stage.sample(image, DDIM, InjectedNoise([noise])))
    torch.testing.assert_close(seen[0][:, :3], noise)
    torch.testing.assert_close(seen[0][:, 3:], enlarge(image, 4))


def test_training_and_sampling_condition_alike():
    """The enlarged shrunken crop is what sampling makes of the same low-res image."""
    stage = build(corruption=NoCorruption())
    seen = seen_by(stage)
    high = shapes(1, 64)
    stage(batch_of(high), Randomness([0]))
    next(stage.sample(shrink(high, 4), DDIM, Randomness([0])))
    torch.testing.assert_close(seen[0][:, 3:], seen[1][:, 3:])


@pytest.mark.parametrize("corruption", [Blur(probability=1), Bsr()])
def test_corruption_is_for_training_only(corruption):
    stage = build(corruption=corruption)
    seen = seen_by(stage)
    batch = batch_of(shapes(2, 32))
    stage(batch, Randomness([0, 1]))
    stage.eval()(batch, Randomness([0, 1]))
    assert batch.images is not None
    clean = enlarge(shrink(batch.images, 4), 4)
    assert (seen[0][:, 3:] - clean).abs().max() > 0.01
    assert torch.equal(seen[1][:, 3:], clean)
    # The noise of the process is not moved by the corruption.
    assert torch.equal(seen[0][:, :3], seen[1][:, :3])


def test_loss_is_decided_by_randomness():
    stage = build(corruption=Bsr())
    batch = batch_of(shapes(2, 32))
    first = stage(batch, Randomness([0, 1]))["loss"]
    assert torch.equal(stage(batch, Randomness([0, 1]))["loss"], first)
    assert not torch.equal(stage(batch, Randomness([2, 3]))["loss"], first)


def test_uneven_crops_are_an_error_naming_the_sample():
    with pytest.raises(DataError, match="sample 0"):
        build()(batch_of(shapes(1, 30)), Randomness([0]))


def test_start_begins_at_the_noised_enlarged_image():
    stage = build()
    seen = seen_by(stage)
    options = SamplingOptions(sampler="ddim", steps=3, start=0.5)
    image, noise = shapes(1, 16), torch.randn(1, 3, 64, 64)
    steps = list(stage.sample(image, options, InjectedNoise([noise])))
    assert [step.stage for step in steps] == ["upsampler 64"] * 3
    t = torch.tensor([first_timestep(stage.process, options)])
    assert 300 < t.item() < 500
    torch.testing.assert_close(seen[0][:, :3], stage.process.add_noise(enlarge(image, 4), t, noise))


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("steps", [1, 4])
def test_a_second_network_takes_the_last_step_alone(sampler, steps):
    stage = build(last_step=True)
    seen = []
    for name in ("first", "last"):
        network = getattr(stage.network, name)
        network.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.append((name, int(inputs[1][0])))
        )
    options = SamplingOptions(sampler=sampler, steps=steps)
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    sampled = finish(stage.sample(image, options, Randomness([0]), tile=32))
    assert sampled.shape == (1, 3, 64, 64)
    by_step = list(dict.fromkeys(seen))
    assert [name for name, _ in by_step] == ["first"] * (steps - 1) + ["last"]
    assert [t for _, t in by_step] == sorted({t for _, t in by_step}, reverse=True)


def test_of_two_networks_the_first_is_trained():
    stage = build(last_step=True)
    stage(batch_of(shapes(2, 32)), Randomness([0, 1]))["loss"].backward()
    assert all(p.grad is not None for p in stage.network.first.parameters())
    assert all(p.grad is None for p in stage.network.last.parameters())


def test_float64_images_are_enlarged_in_float64():
    stage = build().double()
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64) * 2 - 1
    noise = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert finish(stage.sample(image, DDIM, InjectedNoise([noise]))).dtype == torch.float64


def test_images_have_their_own_seeds():
    stage = build().eval()
    low = shapes(3, 8)
    together = finish(stage.sample(low, DDIM, Randomness([5, 6, 7])))
    alone = finish(stage.sample(low[1:2], DDIM, Randomness([6])))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("target", "side", "rate"), [("noise", 16, 5e-3), ("v", 8, 1e-2)])
def test_overfits_one_batch(target, side, rate):
    """With t and noise fixed the loss falls below 2 % of its start."""
    torch.manual_seed(0)
    config = UpsamplerConfig(
        low=side // 4,
        high=side,
        training_crop=side,
        network=network_config(groups=8),
        diffusion=DiffusionConfig(target=target),
    )
    stage = Upsampler(config)
    batch = batch_of(shapes(2, side))
    optimiser = torch.optim.Adam(stage.parameters(), lr=rate)
    losses = []
    for _ in range(300):
        loss = stage(batch, Randomness([0, 1]))["loss"]
        losses.append(loss.item())
        if losses[-1] < 0.02 * losses[0]:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail(f"{losses[-1] / losses[0]:.3f} of the first loss is left")


def gradient_at_seams(image: torch.Tensor, tile: int, overlap: int) -> float:
    """Mean gradient across the blended strips, relative to the mean gradient elsewhere."""
    gradient = (image[..., 1:] - image[..., :-1]).abs().mean((0, 1, 2))
    starts = range(tile - overlap, image.shape[-1] - overlap, tile - overlap)
    seam = torch.zeros(len(gradient), dtype=torch.bool)
    for start in starts:
        seam[start - 1 : start + overlap + 1] = True
    assert 0.1 < seam.float().mean() < 0.6
    return (gradient[seam].mean() / gradient[~seam].mean()).item()


def test_tiles_leave_no_seam():
    """A random network with GroupNorm, a low-res image whose brightness differs between tiles.

    Tiled sampling stays near the untiled picture, and its seams look like the same places there.
    """
    stage = build(diffusion=DiffusionConfig(target="x0")).eval()
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    grain = torch.rand(1, 3, 16, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    low = 0.1 * grain + 0.9 * torch.sin(torch.arange(96) / 12)
    options = SamplingOptions(sampler="ddim", steps=3, clip="none")
    # A random network answers faintly; a real one fills [-1, 1].
    faint = finish(stage.sample(low, options, Randomness([0])))
    with torch.no_grad():
        for parameter in stage.network.exit.parameters():
            parameter *= 0.5 / faint.std()
    seen = seen_by(stage)
    whole = finish(stage.sample(low, options, Randomness([0])))
    parts = finish(stage.sample(low, options, Randomness([0]), tile=64))
    assert {tuple(x.shape[-2:]) for x in seen[:3]} == {(64, 384)}
    assert {tuple(x.shape[-2:]) for x in seen[3:]} == {(64, 64)}
    assert 0.3 < whole.std() < 1
    ratio = gradient_at_seams(parts, 64, 16) / gradient_at_seams(whole, 64, 16)
    assert ratio == pytest.approx(1, abs=0.05)
    psnr = 10 * torch.log10(4 / (parts - whole).square().mean()).item()
    assert psnr > 20, f"PSNR {psnr:.1f} dB"


def test_tiles_without_normalisation_change_nothing(monkeypatch):
    """Without GroupNorm only the receptive field is left, and the overlap is wider than that."""
    monkeypatch.setattr(nn.GroupNorm, "forward", lambda self, x: x)
    stage = build(network_config(depth=1, multipliers=(1,))).eval()
    low = shapes(1, 48)
    whole = finish(stage.sample(low, DDIM, Randomness([0])))
    parts = finish(stage.sample(low, DDIM, Randomness([0]), tile=96))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_tiles_of_any_size_fit_the_network():
    stage = build(network_config(patch=4, multipliers=(1, 2))).eval()
    for tile, side in itertools.product((32, 50, 64), (16, 19)):
        image = shapes(1, side)
        large = finish(stage.sample(image, DDIM, Randomness([0]), tile=tile))
        assert large.shape == (1, 3, 4 * side, 4 * side)
