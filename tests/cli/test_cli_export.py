"""``unclip export``."""

from pathlib import Path

import pytest

from unclip.cli import run


def test_export(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dest = tmp_path / "theirs"
    assert run(["export", str(dest), "--to", "diffusers", "--model", str(tiny_model)]) == 0
    said = capsys.readouterr().out
    for name in ("text_encoder", "image_encoder", "prior"):
        assert (dest / name / "config.json").is_file()
        assert str(dest / name) in said
    assert "left out: decoder: " in said
    assert "a caption encoder" in said
    assert "left out: upsampler-256: " in said
    assert not (dest / "decoder").exists()


def test_mistakes(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "there").mkdir()
    assert run(["export", str(tmp_path / "there"), "-m", str(tiny_model)]) == 2
    assert "exists" in capsys.readouterr().err
    assert run(["export", str(tmp_path / "new"), "--to", "onnx", "-m", str(tiny_model)]) == 2
    assert run(["export", str(tmp_path / "new"), "-m", "no-such-model"]) == 2
    assert not (tmp_path / "new").exists()


def test_a_stage_by_itself(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(tmp_path / "theirs"), "-m", str(tiny_model / "clip")]) == 0
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {
        "text_encoder",
        "image_encoder",
        "tokenizer",
        "feature_extractor",
    }
    assert run(["export", str(tmp_path / "none"), "-m", str(tiny_model / "decoder")]) == 2
    assert "nothing of it fits into diffusers (decoder: " in capsys.readouterr().err
