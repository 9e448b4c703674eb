"""Teach CLIP's text tower the words of a dictionary, by text alone; the image tower stays.

A lesson is a caption with a word of the dictionary in it, and the same caption with the name of a
concept the word may stand for: the tower is to read the first as it read the second before. All
other captions, states of tokens included, are to be read as before.
"""

import logging
from dataclasses import replace
from pathlib import Path
from random import Random

import captions
import numpy as np
import torch
from atlas import Row
from captions import Shown
from dictionary import Dictionary
from scenes import Scenes
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import Clip
from unclip.data.loader import Loader
from unclip.data.source import Sample
from unclip.randomness import Randomness, derive_seed
from unclip.training.config import TrainingConfig
from unclip.training.objectives import unwrapped
from unclip.training.trainer import train
from unclip.types import Batch, Losses

LESSONS = 0.6
"""Share of captions with a new word; the others are scenes' own, to be read as before."""
BARE = 0.4
"""Share of lessons that are the word alone."""
READING = TrainingConfig(
    steps=3000,
    batch=512,
    lr=1e-3,
    warmup=100,
    optimizer="muon",
    betas=(0.9, 0.99),
    weight_decay=0.02,
    schedule="cosine",
    log_every=50,
    save_every=500,
    seed=11,
)
_NO_PICTURE = np.zeros((1, 1, 3), np.uint8)


class Lessons:
    """Captions as they are known; a sample's key is what it is to be read from.

    Args:
        scenes: whose captions they are; without a dictionary of its own.
        dictionary: of all words.
    """

    def __init__(self, scenes: Scenes, dictionary: Dictionary) -> None:
        self.scenes, self.dictionary = scenes, dictionary
        self._rows: dict[str, list[Row]] = {}
        for row in scenes.atlas.rows:
            if row.split == "train":
                self._rows.setdefault(row.concept, []).append(row)

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int) -> Sample:
        """Return the lesson at ``index``."""
        rng = Random(derive_seed(self.scenes.seed, "lesson", index))
        if rng.random() >= LESSONS:
            known = asked = self.scenes.scene(index).caption
        else:
            known, asked = self._lesson(rng)
        return Sample(asked, (known,), _NO_PICTURE)

    def _lesson(self, rng: Random) -> tuple[str, str]:
        number = rng.randrange(len(self.dictionary.words))
        word = self.dictionary.words[number]
        concepts, weights = self.dictionary.meanings(number)
        row = rng.choice(self._rows[rng.choices(concepts, weights)[0]])
        if rng.random() < BARE:
            return row.names["en"][0], word
        known, paper = self.scenes.glimpse(row, rng)
        seed = rng.random()
        said = (_said(some, paper, Random(seed)) for some in (known, replace(known, name=word)))
        return next(said), next(said)


def _said(shown: Shown, paper: str | None, rng: Random) -> str:
    if shown.colour and paper:
        return captions.glyph(shown, paper, "en", rng)
    return captions.single(shown, paper, "en", rng)


class Reading:
    """Loss of a text tower that learns words (`Objective`).

    Args:
        before: CLIP as it was; it stays as it is.
    """

    def __init__(self, before: Clip) -> None:
        self.before = before.requires_grad_(False).eval()

    def __call__(self, stage: nn.Module, batch: Batch, randomness: Randomness) -> Losses:
        """``meaning``: cosine distance to the known caption's z_t; ``drift``: of states kept."""
        assert batch.captions is not None
        known, asked = list(batch.captions), list(batch.keys)
        clip = unwrapped(stage)
        self.before.to(next(clip.parameters()).device)
        ids, mask = _ids(clip, [*known, *asked])
        (ids, asked_ids), (mask, asked_mask) = ids.chunk(2), mask.chunk(2)
        with torch.no_grad():
            z_known, states_known = self.before.network.text_tower()(ids, mask)
        z, states = clip.network.text_tower()(asked_ids, asked_mask)
        meaning = (1 - cosine_similarity(z.float(), z_known.float(), dim=-1)).mean()
        same = torch.tensor([a == b for a, b in zip(known, asked, strict=True)]).to(mask.device)
        moved = (states.float() - states_known.float()).square().mean(dim=-1)
        kept = mask & same[:, None]
        drift = (moved * kept).sum() / kept.sum().clamp(min=1)
        return {"loss": meaning + drift, "meaning": meaning.detach(), "drift": drift.detach()}


def _ids(clip: Clip, texts: list[str]) -> tuple[Tensor, Tensor]:
    ids, mask, _ = clip.tokenizer.encode(texts, clip.config.text_tower().context)
    # Causal attention never looks at padding. Multiples of eight keep the shapes few.
    longest = min(-(-int(mask.sum(dim=1).max()) // 8) * 8, ids.shape[1])
    device = clip.network.logit_scale.device
    return ids[:, :longest].to(device), mask[:, :longest].to(device)


def teach(
    folder: Path, run: Path, cache: Path, config: TrainingConfig, minutes: float | None
) -> None:
    """Teach the CLIP in ``folder``, in place once it is finished, or continue to.

    Prior and decoder have to be trained on it afterwards: they know CLIPs by both towers.
    """
    before, clip = load_stage(folder), load_stage(folder)
    lessons = Lessons(Scenes(cache, seed=config.seed), Dictionary(cache))
    loader = Loader(lessons, config.batch, None, config.seed)
    report = train(clip, loader, config, run, objective=Reading(before), max_minutes=minutes)
    if report.ending == "done":
        save_stage(load_stage(report.folder), folder)
    logging.info("text: %s after %d captions", report.ending, report.images)
