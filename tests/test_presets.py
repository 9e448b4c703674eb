"""Presets: the sizes of the paper (§8.16), of the model that ships, and that all of them fit."""

import pytest
import torch
from torch import nn

from unclip.clip.clip import Clip
from unclip.decoder.decoder import Decoder
from unclip.diffusion.process import Process
from unclip.diffusion.sampling import sampling_grid
from unclip.errors import OptionError
from unclip.presets import PRESETS, Preset, preset
from unclip.prior.diffusion_prior import DiffusionPrior
from unclip.upsampler.upsampler import Upsampler

MEGABYTES_SHIPPED = 32


def networks(sizes: Preset) -> dict[str, nn.Module]:
    """Every stage's network, without memory for its weights."""
    prior, decoder = sizes.prior(sizes.clip), sizes.decoder(sizes.clip)
    with torch.device("meta"):
        return {
            "clip": Clip.from_config(sizes.clip).network,
            "prior": DiffusionPrior(prior).network,
            "decoder": Decoder(decoder).network,
            **{
                f"upsampler-{size}": Upsampler(config).network
                for size, config in sizes.upsamplers.items()
            },
        }


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_paper_has_the_parameters_of_the_paper() -> None:
    built = networks(preset("paper"))
    unet, text = built["decoder"].unet, built["decoder"].text.encoder
    joined = sum(count(module) for name, module in unet.named_modules() if is_context(name))
    billions = {
        "U-Net of the decoder": (count(unet), 2.24),
        "… without keys and values of the text": (count(unet) - joined, 2.10),
        "text transformer": (count(text.transformer), 1.21),
        "vocabulary": (count(text.tokens), 0.10),
        "blocks of the prior": (count(built["prior"].transformer), 1.21),
        "64 to 256": (count(built["upsampler-256"]), 0.730),
        "256 to 1024": (count(built["upsampler-1024"]), 0.282),
        "CLIP, images": (count(built["clip"].image), 0.63),
        "CLIP, text": (count(built["clip"].text), 0.35),
    }
    for part, (ours, theirs) in billions.items():
        digits = 3 if theirs in (0.730, 0.282) else 2
        assert round(ours / 1e9, digits) == theirs, part


def is_context(name: str) -> bool:
    """Whether a module of the U-Net projects text states to keys and values."""
    return name.split(".")[-1] == "context"


def test_the_shipped_model_fits_into_its_package() -> None:
    built = networks(preset("emoji"))
    built["clip"].thumbnail = None  # does not ship
    parameters = sum(count(network) for network in built.values())
    assert 2 * parameters < MEGABYTES_SHIPPED * 1e6
    assert parameters < 16.0e6


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_whole(name: str) -> None:
    """Every stage has a training, every sampler fits its process, the sizes are a chain."""
    sizes = preset(name)
    upsamplers = {f"upsampler-{size}" for size in sizes.upsamplers}
    assert set(sizes.training) == {"clip", "prior", "prior-autoregressive", "decoder"} | upsamplers
    prior, decoder = sizes.prior(sizes.clip), sizes.decoder(sizes.clip)
    sampling_grid(Process(prior.diffusion), sizes.defaults.prior)
    sampling_grid(Process(decoder.diffusion), sizes.defaults.decoder)
    size = decoder.size
    for high, config in sizes.upsamplers.items():
        assert (config.low, config.high) == (size, high)
        sampling_grid(Process(config.diffusion), sizes.defaults.upsampler[str(high)])
        size = high
    assert prior.network.embedding == decoder.network.embedding == sizes.clip.embedding


def test_drawings_are_cut_where_something_is() -> None:
    """Most crops of an emoji are blank; the paper's are cut anywhere."""
    chosen = {
        name: {config.crop_candidates for config in preset(name).upsamplers.values()}
        for name in ("emoji", "paper")
    }
    assert chosen["paper"] == {1}
    assert chosen["emoji"] <= {3, 4}


def test_an_unknown_preset_is_named_with_those_there_are() -> None:
    with pytest.raises(OptionError, match=r"no preset 'huge'; known: tiny, emoji, .*paper"):
        preset("huge")
