"""What lies around the loop when a stage is trained into a model folder."""

import json
from pathlib import Path

import pytest
import torch

from unclip.checkpoint import INDEX, Card, Index, read_index, write_index
from unclip.clip.clip import Clip
from unclip.data.embeddings import EmbeddedSource
from unclip.data.folder import FolderSource
from unclip.data.shards import StreamedShards
from unclip.data.transforms import RandomCropMultiple, SquareResize
from unclip.errors import CheckpointError, DataError, TrainingError
from unclip.options import GenerateOptions
from unclip.presets import preset
from unclip.randomness import Randomness
from unclip.runtime import Runtime
from unclip.training import preview, session
from unclip.training.conditioner import FrozenClip
from unclip.training.config import TrainingConfig
from unclip.types import Batch
from unclip.upsampler.upsampler import Upsampler


def test_crops_are_chosen_as_the_upsampler_says(tiny_stages: dict) -> None:
    config = preset("tiny").upsamplers[256].updated({"crop_candidates": 3})
    with torch.device("meta"):
        crops = session.transform_for(Upsampler(config))
    assert crops == RandomCropMultiple(size=64, image_size=256, multiple=4, candidates=3)
    assert session.transform_for(tiny_stages["clip"]) == SquareResize(size=32, crop="random")
    assert session.transform_for(tiny_stages["decoder"]) == SquareResize(size=64)


def test_clip_embeds_images_at_its_own_size_and_the_decoder_learns_them_smaller(
    tiny_stages: dict,
) -> None:
    clip = Clip.from_config(preset("tiny").clip.updated({"image": {"size": 128}}))
    decoder = tiny_stages["decoder"]
    assert session.transform_for(decoder, clip) == SquareResize(size=128)
    assert session.transform_for(tiny_stages["prior"], clip) == SquareResize(size=128)
    assert session.transform_for(decoder, tiny_stages["clip"]) == SquareResize(size=64)

    images = Randomness([0, 1]).uniform(3, 128, 128) * 2 - 1
    batch = Batch(keys=("a", "b"), captions=("a ball", "a box"), images=images)
    seen = FrozenClip(clip, decoder.needs, decoder.config.size)(batch)
    assert torch.equal(seen.image_embedding, clip.encode_image(images))
    assert seen.images.shape == (2, 3, 64, 64)
    theirs = images.reshape(2, 3, 64, 2, 64, 2).mean((3, 5))
    assert (seen.images - theirs).std() < 0.5 * theirs.std(), "shrunk, neither cut nor shifted"


def test_stages_are_registered_one_after_the_other(tmp_path: Path) -> None:
    defaults = GenerateOptions(candidates=3)
    for folder in ("prior", "upsampler-1024", "upsampler-256"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
        session._register(tmp_path / "mine", folder, defaults)
    index = read_index(tmp_path / "mine")
    assert index.folders() == ["prior", "upsampler-256", "upsampler-1024"], "what is there"
    assert index.upsamplers == {256: "upsampler-256", 1024: "upsampler-1024"}
    assert index.card.name == "mine"
    assert index.defaults.model_dump(exclude_unset=True) == {"candidates": 3}


def test_what_a_model_says_of_itself_is_kept(tmp_path: Path) -> None:
    card = Card(name="fine", licence="Apache-2.0")
    write_index(tmp_path, Index(prior="prior", card=card, defaults=GenerateOptions(seed=3)))
    session._register(tmp_path, "clip", GenerateOptions(seed=4))
    index = read_index(tmp_path)
    assert (index.card, index.defaults.seed) == (card, 3)
    assert index.folders() == [], "nothing that is named was there"
    (tmp_path / INDEX).write_text(json.dumps({"format": 9}))
    with pytest.raises(CheckpointError, match="format"):
        session._register(tmp_path, "clip", None)
    assert json.loads((tmp_path / INDEX).read_text()) == {"format": 9}, "not replaced silently"


@pytest.mark.parametrize(
    ("chosen", "rank", "expected"),
    [
        ("cuda", "1", "cuda:1"),
        ("cuda:0", "1", "cuda:0"),
        ("cuda", None, "cuda"),
        ("cpu", "1", "cpu"),
    ],
)
def test_every_process_has_a_gpu_of_its_own(
    chosen: str, rank: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(torch.device(chosen), torch.float32, channels_last=True, compile=False)
    monkeypatch.setattr(session, "choose_runtime", lambda device: runtime)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert session._own(None).device == torch.device(expected)


def test_kept_embeddings_need_no_images_or_those_of_the_decoders_size(tiny_stages: dict) -> None:
    clip = Clip.from_config(preset("tiny").clip.updated({"image": {"size": 128}}))
    kept = EmbeddedSource.__new__(EmbeddedSource)
    assert session.transform_for(tiny_stages["prior"], clip, kept) is None
    assert session.transform_for(tiny_stages["decoder"], clip, kept) == SquareResize(size=64)


def test_several_processes_do_not_compute_embeddings(
    tiny_stages: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DataError, match="compute them first"):
        session.embedded(FolderSource(tmp_path / "data"), tmp_path / "z", tiny_stages["clip"])
    with pytest.raises(DataError, match="not a stream"):
        session.embedded(StreamedShards(["http://x/0.tar"]), tmp_path, tiny_stages["clip"])


def test_a_batch_that_cannot_be_shared_is_refused(
    tiny_stages: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = TrainingConfig(steps=1, batch=33, lr=1e-3)
    with pytest.raises(TrainingError, match=r"batch of 33 .* by 2 .* to a multiple of 2"):
        session.train_into(tmp_path, tiny_stages["clip"], FolderSource(tmp_path), config)


def test_previews_take_few_steps(tiny_stages: dict) -> None:
    options = GenerateOptions.model_validate(
        {
            "decoder": {"steps": 250, "guidance": 3.0},
            "upsampler": {"256": {"steps": 3, "spacing": (10, 20, 30)}},
        }
    )
    how = preview._how(tiny_stages["decoder"], options, 50)
    assert (how.steps, how.guidance) == (50, 3.0)
    upsampler = tiny_stages["upsampler-256"]
    assert preview._how(upsampler, options, 50) == options.upsampler["256"]
    assert preview._how(upsampler, options, 2).spacing is None
    assert preview._how(upsampler, GenerateOptions(), 5).steps == 5
