from pathlib import Path

import pytest
import torch
import train
from alike import Alike

from unclip.checkpoint import save_stage
from unclip.errors import DataError
from unclip.presets import preset
from unclip.upsampler.upsampler import Upsampler


def test_the_upsampler_to_1024_begins_as_the_outer_level_of_the_smaller(tmp_path: Path) -> None:
    sizes = preset("emoji").upsamplers
    smaller, larger = (Upsampler(sizes[size]) for size in (256, 1024))
    save_stage(smaller, tmp_path / "upsampler-256")
    train.go_on(larger, tmp_path / "upsampler-256")
    known = smaller.state_dict()
    assert all(torch.equal(known[name], value) for name, value in larger.state_dict().items())
    assert len(known) > len(larger.state_dict())


def test_what_does_not_fit_begins_as_in_a_new_stage(tmp_path: Path) -> None:
    config = preset("emoji").upsamplers[1024]
    wider = config.model_copy(
        update={"network": config.network.model_copy(update={"channels": 96})}
    )
    save_stage(Upsampler(wider), tmp_path / "upsampler")
    torch.manual_seed(0)
    stage = Upsampler(config)
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    other = Upsampler(wider).state_dict()
    train.go_on(stage, tmp_path / "upsampler")
    for name, value in stage.state_dict().items():
        if value.shape != other[name].shape:
            assert torch.equal(value, before[name])


def test_prior_and_decoder_meet_words_of_the_dictionary(packed: Path) -> None:
    assert isinstance(train.scenes_for("clip", packed, 64, 0), Alike)
    for kind in ("prior", "decoder"):
        with pytest.raises(DataError, match="word_vectors"):
            train.scenes_for(kind, packed, 64, 0)
