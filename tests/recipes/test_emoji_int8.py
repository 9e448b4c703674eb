import sys

import pytest
import torch
from int8 import LEVELS, main, rounded, size

from unclip.checkpoint import Index, load_stage, save_stage, write_index
from unclip.clip.clip import Clip
from unclip.clip.tokenizer import Tokenizer
from unclip.presets import preset


def test_a_copy_holds_what_int8_would(tmp_path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Every matrix that is read back lies on the grid of its own rows."""
    torch.manual_seed(0)
    clip = Clip(preset("tiny").clip, Tokenizer.train([], vocabulary=259))
    save_stage(clip, tmp_path / "model" / "clip")
    write_index(tmp_path / "model", Index().naming("clip"))
    monkeypatch.setattr(sys, "argv", ["int8.py", f"{tmp_path}/model", f"{tmp_path}/copy"])
    main()
    copy, own = load_stage(tmp_path / "copy" / "clip").state_dict(), clip.state_dict()
    for name, weight in copy.items():
        assert torch.equal(weight, rounded(own[name]))
        if weight.ndim >= 2:
            assert all(row.unique().numel() <= 2 * LEVELS + 1 for row in weight.flatten(1))
    assert "in int8" in capsys.readouterr().out


def test_each_row_takes_the_nearest_of_its_own_255_values():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, 3, 3, generator=generator) * torch.tensor([1e-3, 1, 10, 0, 5]).view(
        5, 1, 1, 1
    )
    near = rounded(weight)
    for row, found in zip(weight.flatten(1), near.flatten(1), strict=True):
        step = (row.abs().max() / LEVELS).bfloat16().float()
        assert (row - found).abs().max() <= 0.8 * step  # the scale has eight bits
        assert found.unique().numel() <= 2 * LEVELS + 1
        if step:
            assert torch.allclose((found / step).round(), found / step, atol=1e-3)
    assert torch.equal(near[3], torch.zeros(3, 3, 3))
    assert torch.allclose(rounded(near), near)


def test_vectors_stay_and_count_two_bytes_a_number():
    bias = torch.randn(7)
    assert torch.equal(rounded(bias), bias)
    assert size(bias) == 14
    assert size(torch.zeros(4, 6)) == 24 + 8
