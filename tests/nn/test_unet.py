import re

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn
from torch.nn.functional import avg_pool2d, pad

from unclip.config import Config
from unclip.errors import OptionError
from unclip.nn.unet import UNet, UNetConfig
from unclip.nn.unet_blocks import ResBlock, deviations

ADM = UNetConfig(
    in_channels=3,
    out_channels=6,
    channels=192,
    multipliers=(1, 2, 3, 4),
    depth=3,
    attention=(2, 4, 8),
    dropout=0.1,
)
ADM_UPSAMPLER = UNetConfig(
    in_channels=6,
    out_channels=6,
    channels=192,
    multipliers=(1, 1, 2, 2, 4, 4),
    depth=2,
    attention=(8, 16, 32),
)
REFINER = {"in_channels": 6, "out_channels": 3, "middle_attention": False, "attention": ()}

SMALL = UNetConfig(
    in_channels=3,
    out_channels=6,
    channels=32,
    multipliers=(1, 2, 3),
    depth=2,
    attention=(2, 4),
    head_channels=32,
    context_width=48,
)


def changed(config: Config, **values):
    return type(config).parse({**config.model_dump(), **values}, source="test")


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, so that no zero or identity start hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 100
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan**0.5
        if "norm" in name and name.endswith("weight"):
            values = values + 1
        parameter.data.copy_(values)
    return module.eval()


def count(config: UNetConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(config).parameters())


@pytest.mark.parametrize(
    ("config", "published"),
    [
        pytest.param(ADM, 295_136_454, id="ADM ImageNet-64, 296M with its class embedding"),
        pytest.param(ADM_UPSAMPLER, 311_027_910, id="ADM 64 to 256, 312M with class embedding"),
        pytest.param(changed(ADM, channels=320, context_width=1536), 885_439_686, id="Karlo"),
        pytest.param(
            changed(ADM, **REFINER, channels=320, scale_shift_norm=False),
            691_579_523,
            id="Karlo super-resolution",
        ),
    ],
)
def test_published_networks_are_held_exactly(config, published):
    assert count(config) == published


@pytest.mark.parametrize(
    ("config", "billions"),
    [
        pytest.param(changed(ADM, channels=512, context_width=2048), 2.24, id="decoder"),
        pytest.param(changed(ADM, channels=512), 2.10, id="decoder without text keys and values"),
        pytest.param(changed(ADM, **REFINER, channels=320), 0.730, id="64 to 256"),
        pytest.param(changed(ADM_UPSAMPLER, **REFINER), 0.282, id="256 to 1024"),
    ],
)
def test_paper_networks_have_the_papers_size(config, billions):
    assert count(config) / 1e9 == pytest.approx(billions, abs=0.005 if billions > 1 else 0.0005)


# --- parity with diffusers -------------------------------------------------------------------

RESNET = {
    "norm1": "norm_1",
    "conv1": "conv_1",
    "time_emb_proj": "embedding",
    "norm2": "norm_2",
    "conv2": "conv_2",
    "conv_shortcut": "skip",
}
ATTENTION = {"group_norm": "norm", "to_out.0": "out"}


def from_diffusers(state: dict, config: UNetConfig) -> dict:
    """Rename the weights of a diffusers U-Net of Karlo's block types to ours."""
    state = dict(state)
    renamed = {}
    for theirs, ours in (
        ("time_embedding", "time"),
        ("conv_in", "entrance"),
        ("conv_norm_out", "norm"),
        ("conv_out", "exit"),
    ):
        for key in [key for key in state if key.startswith(theirs + ".")]:
            renamed[ours + key.removeprefix(theirs)] = state.pop(key)
    fused: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in state.items():
        place, kind, index, rest = re.fullmatch(
            r"((?:down|up)_blocks\.\d+|mid_block)\.([a-z]+)\.(\d+)\.(.+)", key
        ).groups()
        side, _, level = place.partition("_blocks.")
        within = config.depth if kind in ("downsamplers", "upsamplers") else int(index)
        stem = "middle" if side == "mid_block" else side
        block = f"{stem}.{int(level or 0) * (config.depth + 1) + within}"
        name, _, leaf = rest.rpartition(".")
        if kind != "attentions":
            role = "resize" if kind == "upsamplers" else "residual"
            renamed[f"{block}.{role}.{RESNET[name]}.{leaf}"] = value
        elif name in ATTENTION:
            renamed[f"{block}.attention.{ATTENTION[name]}.{leaf}"] = value
        else:
            fused.setdefault(f"{block}.attention.{leaf}", {})[name] = value
    for key, parts in fused.items():
        attention, leaf = key.rsplit(".", 1)
        pick = lambda *names, parts=parts: torch.cat([parts[name] for name in names])  # noqa: E731
        renamed[f"{attention}.qkv.{leaf}"] = pick("to_q", "to_k", "to_v")
        if "add_k_proj" in parts:
            renamed[f"{attention}.context.{leaf}"] = pick("add_k_proj", "add_v_proj")
    return renamed


def diffusers_decoder() -> UNet2DConditionModel:
    down = ("ResnetDownsampleBlock2D",) + ("SimpleCrossAttnDownBlock2D",) * 2
    up = ("SimpleCrossAttnUpBlock2D",) * 2 + ("ResnetUpsampleBlock2D",)
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=down,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=up,
        only_cross_attention=False,
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        norm_eps=1e-5,
        cross_attention_dim=48,
        attention_head_dim=32,
        class_embed_type="identity",
        resnet_time_scale_shift="scale_shift",
    )


def diffusers_refiner() -> UNet2DModel:
    return UNet2DModel(
        sample_size=16,
        in_channels=6,
        out_channels=3,
        flip_sin_to_cos=True,
        freq_shift=0,
        down_block_types=("ResnetDownsampleBlock2D",) * 3,
        up_block_types=("ResnetUpsampleBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        norm_eps=1e-5,
        add_attention=False,
        resnet_time_scale_shift="default",
    )


@pytest.fixture(scope="module")
def decoders() -> tuple[nn.Module, UNet]:
    theirs = randomise(diffusers_decoder())
    ours = UNet(SMALL).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), SMALL))
    return theirs, ours


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-5)])
@pytest.mark.parametrize("t", [0, 500, 999])
def test_decoder_equals_diffusers(decoders, dtype, tolerance, t, memory):
    theirs, ours = (network.to(dtype) for network in decoders)
    ours.to(memory_format=memory)
    generator = torch.Generator().manual_seed(t)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(dtype)

    x, embedding, tokens = draw(3, 3, 16, 16), draw(3, 128), draw(3, 9, 48)
    mask = torch.arange(9) < torch.tensor([[2], [5], [9]])
    with torch.no_grad():
        expected = theirs(x, t, tokens, class_labels=embedding, encoder_attention_mask=mask).sample
        timesteps = torch.full((3,), t)
        result = ours(x, timesteps, embedding, ours.prepare_context(tokens, mask))
    # diffusers computes sinusoids in float32 whatever the dtype, as we do.
    assert (result - expected).abs().max() <= tolerance * expected.std()
    assert expected.std() > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 2e-5)])
@pytest.mark.parametrize("t", [0, 500, 999])
def test_refiner_equals_diffusers(dtype, tolerance, t):
    config = changed(SMALL, **REFINER, scale_shift_norm=False, context_width=None)
    theirs = randomise(diffusers_refiner()).to(dtype)
    ours = UNet(config).to(dtype).eval()
    ours.load_state_dict(from_diffusers(theirs.state_dict(), config))
    x = torch.randn(2, 6, 16, 24, generator=torch.Generator().manual_seed(t)).to(dtype)
    with torch.no_grad():
        expected = theirs(x, t).sample
        result = ours(x, torch.full((2,), t))
    assert (result - expected).abs().max() <= tolerance * expected.std()
    assert expected.std() > 0.1


# --- properties ------------------------------------------------------------------------------


def inputs(batch: int = 2, side: int = 16):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 3, side, side, generator=generator)
    return x, torch.arange(batch) * 100, torch.randn(batch, 5, 48, generator=generator)


def test_masked_context_tokens_have_no_effect():
    network = randomise(UNet(SMALL))
    x, t, tokens = inputs()
    mask = torch.tensor([[True, True, True, False, False], [True, False, False, False, False]])
    other = torch.where(mask[..., None], tokens, tokens + 7)
    with torch.no_grad():
        first, second = (
            network(x, t, None, network.prepare_context(c, mask)) for c in (tokens, other)
        )
        unmasked = network(x, t, None, network.prepare_context(other))
    assert torch.equal(first, second)
    assert not torch.allclose(first, unmasked)


def test_a_context_and_its_first_half_agree():
    network = randomise(UNet(SMALL))
    x, t, tokens = inputs(4)
    mask = torch.ones(4, 5, dtype=torch.bool)
    with torch.no_grad():
        context = network.prepare_context(tokens, mask)
        half = network(x[:2], t[:2], None, context.first(2))
        alone = network(x[:2], t[:2], None, network.prepare_context(tokens[:2], mask[:2]))
    assert torch.equal(half, alone)


def test_a_new_network_answers_zero_and_its_res_blocks_are_the_identity():
    network = UNet(SMALL).eval()
    x, t, tokens = inputs()
    assert not network(x, t, None, network.prepare_context(tokens)).any()
    block = ResBlock(8, 8, 4, groups=4, dropout=0.0, scale_shift=True)
    h = torch.randn(1, 8, 4, 4)
    assert torch.equal(block(h, torch.randn(1, 4)), h)


@pytest.mark.parametrize(("patch", "bandwidths"), [(1, []), (4, []), (4, [0.1, 0.5])])
@pytest.mark.parametrize("resblock_updown", [True, False])
def test_gradients_reach_every_parameter_and_checkpointing_does_not_change_them(
    patch, bandwidths, resblock_updown
):
    config = changed(SMALL, patch=patch, bandwidths=bandwidths, resblock_updown=resblock_updown)
    network = randomise(UNet(config)).train()
    x, t, tokens = inputs(side=config.stride * 2)
    embedding = torch.randn(2, config.embedding_width)

    def gradients() -> dict[str, torch.Tensor]:
        network.zero_grad()
        network(x, t, embedding, network.prepare_context(tokens)).square().sum().backward()
        return {name: p.grad.clone() for name, p in network.named_parameters()}

    plain = gradients()
    network.gradient_checkpointing = True
    checkpointed = gradients()
    for name, gradient in plain.items():
        assert gradient.any(), name
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_patches_meet_without_seams():
    """The exit's convolution reads across the border between two patches."""
    network = randomise(UNet(changed(SMALL, patch=4)))
    features = torch.zeros(1, 32, 2, 2)
    features.requires_grad_()
    pixels = torch.zeros(1, 3, 8, 8)
    network.exit.to_pixels.weight.data.zero_()[:, :, 1, 1] = 1.0
    embedding = torch.zeros(1, network.config.embedding_width)
    network.exit(features, pixels, embedding)[0, 0, 3, 3].backward()
    reached = features.grad[0].abs().sum(0) > 0
    assert reached.all(), "pixel (3, 3) touches all four patches"


def test_noise_level_and_place_decide_how_much_of_the_input_the_exit_reads():
    network = randomise(UNet(changed(SMALL, patch=4)))
    features = torch.zeros(1, 32, 2, 2)
    pixels = torch.randn(1, 3, 8, 8)
    embedding = torch.randn(1, network.config.embedding_width)
    for gain in (network.exit.level_gain, network.exit.place_gain):
        gain.weight.data.zero_()

    def read(level: float, place: float) -> torch.Tensor:
        network.exit.level_gain.bias.data.fill_(level)
        network.exit.place_gain.bias.data.fill_(place)
        return network.exit(features, pixels, embedding)

    nothing = read(-1.0, 0.0)
    assert torch.equal(nothing, network.exit(features, 0 * pixels, embedding))
    torch.testing.assert_close(read(1.0, 0.0) - nothing, 2 * (read(0.0, 0.0) - nothing))
    torch.testing.assert_close(read(0.0, 1.0), read(1.0, 0.0))


def test_deviations_of_flat_parts_are_all_noise_but_its_mean_of_nine():
    x = 0.7 + 0.001 * torch.randn(2, 3, 9, 12, dtype=torch.float64)
    mean = avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    faint, fainter = deviations(x, (0.5, 2.0)).chunk(2, dim=1)
    torch.testing.assert_close(0.5 * faint.double(), x - mean, rtol=1e-3, atol=1e-7)
    torch.testing.assert_close(2.0 * fainter.double(), x - mean, rtol=1e-3, atol=1e-6)


def test_deviations_do_not_see_an_edge_far_above_the_bandwidth():
    noise = 0.01 * torch.randn(1, 3, 8, 8)
    edge = noise.clone()
    edge[..., 4:] += 1.0
    plain, beside = deviations(noise, (0.05,)), deviations(edge, (0.05,))
    torch.testing.assert_close(beside[..., :3], plain[..., :3], rtol=1e-5, atol=1e-6)
    assert beside.abs().max() < 1, "the edge itself is twenty bandwidths high"
    leaking = deviations(edge, (5.0,))[..., 3] * 5.0
    assert leaking.mean() < -0.2, "a bandwidth above the edge takes it for noise"


def test_the_exit_sees_noise_that_bfloat16_hides_beside_the_picture():
    """One level of 8-bit colour is half the distance of two numbers of bfloat16 near white."""
    network = randomise(UNet(changed(SMALL, patch=4, bandwidths=[0.01]))).bfloat16()
    noise = torch.randn(1, 3, 32, 32)
    features = torch.zeros(1, 32, 8, 8, dtype=torch.bfloat16)
    embedding = torch.zeros(1, network.config.embedding_width, dtype=torch.bfloat16)

    def told_apart(network: UNet) -> float:
        with torch.no_grad():
            one, other = (
                network.exit(features, 0.99 + 0.001 * sign * noise, embedding).float()
                for sign in (1, -1)
            )
        # Linear in noise: what differs between opposite noises is all that was seen of it.
        return float((one - other).square().mean() / (one + other).var())

    seen = told_apart(network)
    network.exit.fine_conv.weight.data.zero_()
    assert seen > 10 * told_apart(network)


def test_a_network_that_reads_deviations_begins_as_it_was_without():
    config = changed(SMALL, patch=4)
    plain = randomise(UNet(config))
    network = UNet(changed(config, bandwidths=[0.03, 0.15])).eval()
    missing = network.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(key.startswith("exit.fine_") for key in missing)
    x, t, tokens = inputs(side=config.stride * 2)
    context = plain.prepare_context(tokens)
    assert torch.equal(network(x, t, None, context), plain(x, t, None, context))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"bandwidths": [0.1]}, "set patch above 1"),
        ({"patch": 4, "bandwidths": [0.1, 0]}, "above 0"),
    ],
)
def test_bandwidths_that_mean_nothing_are_refused(values, told):
    with pytest.raises(OptionError, match=told):
        changed(SMALL, **values)


def test_output_has_the_dtype_of_the_input_whatever_the_weights():
    network = randomise(UNet(SMALL)).bfloat16()
    x, t, tokens = inputs()
    with torch.no_grad():
        context = network.prepare_context(tokens.bfloat16())
        result = network(x, t, None, context)
        reference = network.float()(x, t, None, network.prepare_context(tokens))
    assert result.dtype == torch.float32
    assert (result - reference).std() < 0.05 * reference.std()


def test_images_stay_channels_last():
    network = randomise(UNet(SMALL)).to(memory_format=torch.channels_last)
    x, t, tokens = inputs()
    seen = []
    for block in [*network.down, *network.middle, *network.up]:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        network(x, t, None, network.prepare_context(tokens))
    assert len(seen) == len([*network.down, *network.middle, *network.up])
    assert all(h.is_contiguous(memory_format=torch.channels_last) for h in seen)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        ({"attention": (3,)}, "attention at"),
        ({"attention": (), "middle_attention": False}, "context_width"),
        ({"channels": 24}, "whole heads"),
    ],
)
def test_impossible_shapes_are_named(values, culprit):
    with pytest.raises(OptionError, match=culprit):
        changed(SMALL, **values)
