"""A CLIP of one tower does what it can, and says what it cannot."""

import pytest
import torch

from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import TOKENIZER, Clip, ClipConfig
from unclip.clip.text import TextConfig
from unclip.clip.vision import ViTConfig
from unclip.errors import CheckpointError

IMAGE = ViTConfig(size=16, patch=8, width=16, depth=1, heads=2)
TEXT = TextConfig(context=8, width=16, depth=1, heads=2, vocabulary=300)


def one_tower(tmp_path, image=None, text=None):
    save_stage(Clip.from_config(ClipConfig(image=image, text=text, embedding=8)), tmp_path / "clip")
    return load_stage(tmp_path / "clip")


def test_text_alone(tmp_path):
    clip = one_tower(tmp_path, text=TEXT)
    assert clip.encode_text(["a cat"], warn=False).embedding.shape == (1, 8)
    assert clip.identity().image is None
    with pytest.raises(CheckpointError, match="has no image tower"):
        clip.encode_image(torch.zeros(1, 3, 16, 16))
    with pytest.raises(CheckpointError, match=r"embeds no images: .* --clip, that has both towers"):
        clip.config.image_tower()


def test_images_alone(tmp_path):
    clip = one_tower(tmp_path, image=IMAGE)
    assert clip.encode_image(torch.zeros(1, 3, 20, 16)).shape == (1, 8)
    assert not (tmp_path / "clip" / TOKENIZER).exists()
    with pytest.raises(CheckpointError, match="has no text tower"):
        clip.encode_text(["a cat"])
    with pytest.raises(CheckpointError, match="has no text tower"):
        _ = clip.tokenizer
