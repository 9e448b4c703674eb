"""Every test runs with the shapes in the signatures checked. A tiny model is made once."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("unclip", "beartype.beartype")
torch.set_num_threads(int(os.environ.get("UNCLIP_TEST_THREADS", "1")))
settings.register_profile("unclip", deadline=None)  # a busy machine is no failure
settings.load_profile("unclip")


@pytest.fixture(scope="session")
def tiny_stages() -> dict[str, Any]:
    """Every stage of the preset `tiny`, by the name of its folder, with all weights random."""
    from unclip.clip.clip import Clip
    from unclip.decoder.decoder import Decoder
    from unclip.presets import preset
    from unclip.prior.diffusion_prior import DiffusionPrior
    from unclip.upsampler.upsampler import Upsampler

    tiny = preset("tiny")
    torch.manual_seed(1)
    stages = {
        "clip": Clip.from_config(tiny.clip),
        "prior": DiffusionPrior(tiny.prior(tiny.clip)),
        "decoder": Decoder(tiny.decoder(tiny.clip)),
        **{f"upsampler-{size}": Upsampler(config) for size, config in tiny.upsamplers.items()},
    }
    with torch.no_grad():
        for stage in stages.values():
            for parameter in stage.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return stages


@pytest.fixture(scope="session")
def tiny_model(tiny_stages: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their model folder; not to be changed, copy it for that."""
    from unclip.checkpoint import Card, save_pipeline
    from unclip.presets import preset

    folder = tmp_path_factory.mktemp("models") / "tiny"
    card = Card(name="tiny", description="random weights", licence="Apache-2.0")
    save_pipeline(folder, tiny_stages, defaults=preset("tiny").defaults, card=card)
    return folder
