"""Teach CLIP's text tower the words of a dictionary, by text alone; the image tower stays.

Most lessons are words alone: the tower is to read each as the mean of what it makes of the concepts
the word may stand for. Some are captions with a word in place of one of those concepts' names, to
be read as the caption with the name. All other captions, states of tokens included, are to be read
as before.
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
from dictionary import Dictionary, held
from grammar import article
from scenes import Scenes, reserved
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from unclip.checkpoint import load_stage, save_stage
from unclip.clip.clip import Clip
from unclip.data.loader import Loader
from unclip.data.source import Sample
from unclip.errors import TrainingError
from unclip.randomness import Randomness, derive_seed
from unclip.training.config import TrainingConfig
from unclip.training.objectives import unwrapped
from unclip.training.trainer import train
from unclip.types import Batch, Losses

WORDS, CAPTIONS, NAMES = 0.65, 0.08, 0.13
"""Shares of words alone, captions with a word, and names alone, which are to stay what they are;
the others are scenes' own captions."""
READING = TrainingConfig(
    steps=2500,
    batch=1536,
    lr=2e-3,
    warmup=100,
    optimizer="muon",
    betas=(0.9, 0.99),
    weight_decay=0.01,
    schedule="cosine",
    log_every=50,
    save_every=500,
    seed=11,
)
_NO_PICTURE = np.zeros((1, 1, 3), np.uint8)


class Lessons:
    """Captions as they are known; a sample's key is what is to be read alike. Words are their own.

    Args:
        scenes: whose captions they are; without a dictionary of its own.
        dictionary: of all words. Those that are names are not taught, nor `reserved` ones.
    """

    def __init__(self, scenes: Scenes, dictionary: Dictionary) -> None:
        self.scenes, self.dictionary = scenes, dictionary
        self._rows: dict[str, list[Row]] = {}
        for row in scenes.atlas.rows:
            if row.split == "train":
                self._rows.setdefault(row.concept, []).append(row)
        self._concepts = list(self._rows.values())
        self.names = {key: rows[0].names["en"][0] for key, rows in self._rows.items()}
        known = {name for rows in self._rows.values() for row in rows for name in row.names["en"]}
        kept = reserved(scenes.atlas)
        self.taught = [
            i
            for i, word in enumerate(dictionary.words)
            if word not in known and not held(word, kept)
        ]

    def __len__(self) -> int:
        return len(self.scenes)

    def sample(self, index: int) -> Sample:
        """Return the lesson at ``index``."""
        rng = Random(derive_seed(self.scenes.seed, "lesson", index))
        kind = rng.random()
        if kind < CAPTIONS:
            known, asked = self._captions(rng.choice(self.taught), rng)
        elif kind < CAPTIONS + WORDS:
            known = asked = self.dictionary.words[rng.choice(self.taught)]
        elif kind < CAPTIONS + WORDS + NAMES:
            known = asked = self._name(rng)
        else:
            known = asked = self.scenes.scene(index).caption
        return Sample(asked, (known,), _NO_PICTURE)

    def _name(self, rng: Random) -> str:
        row = rng.choice(rng.choice(self._concepts))
        name = rng.choice(row.names["en"])
        return article(name) if rng.random() < 0.5 else name

    def _captions(self, number: int, rng: Random) -> tuple[str, str]:
        concepts, weights = self.dictionary.meanings(number)
        row = rng.choice(self._rows[rng.choices(concepts, weights)[0]])
        shown, paper = self.scenes.glimpse(row, rng)
        seed, word = rng.random(), self.dictionary.words[number]
        known, asked = (
            _said(some, paper, Random(seed)) for some in (shown, replace(shown, name=word))
        )
        return known, asked


def _said(shown: Shown, paper: str | None, rng: Random) -> str:
    if shown.colour and paper:
        return captions.glyph(shown, paper, "en", rng)
    return captions.single(shown, paper, "en", rng)


class Reading:
    """Loss of a text tower that learns words (`Objective`).

    Args:
        before: CLIP as it was; it stays as it is.
        lessons: says what words stand for.
    """

    def __init__(self, before: Clip, lessons: Lessons) -> None:
        self.before = before.requires_grad_(False).eval()
        keys = list(lessons.names)
        names = [lessons.names[key] for key in keys]
        parts = [names[i : i + 256] for i in range(0, len(names), 256)]
        z = torch.cat([before.encode_text(part, warn=False).embedding for part in parts])
        place = {key: row for row, key in enumerate(keys)}
        self._meant: dict[str, Tensor] = {}
        for number in lessons.taught:
            concepts, weights = lessons.dictionary.meanings(number)
            mean = torch.tensor(weights) @ z[[place[concept] for concept in concepts]].cpu()
            self._meant[lessons.dictionary.words[number]] = mean

    def __call__(self, stage: nn.Module, batch: Batch, randomness: Randomness) -> Losses:
        """Cosine distances of ``words``, and of all ``captions``, to what z_t is to be.

        ``drift`` is the mean squared error of the states of what is kept.
        """
        assert batch.captions is not None
        clip = unwrapped(stage)
        device = next(clip.parameters()).device
        words = [word for word in batch.keys if word in self._meant]
        pairs = [
            (known, asked)
            for known, asked in zip(batch.captions, batch.keys, strict=True)
            if asked not in self._meant
        ]
        tower = clip.network.text_tower()
        words.sort(key=len)  # a long one would have all of them padded
        z = torch.cat([tower(*clip.tokens(part)[:2])[0] for part in _parts(words)])
        meant = torch.stack([self._meant[word] for word in words]).to(device)
        ids, mask, _ = clip.tokens([text for side in zip(*pairs, strict=True) for text in side])
        (known_ids, asked_ids), (known_mask, asked_mask) = ids.chunk(2), mask.chunk(2)
        with torch.no_grad():
            z_known, states_known = self.before.to(device).network.text_tower()(
                known_ids, known_mask
            )
        z_asked, states = tower(asked_ids, asked_mask)
        same = torch.tensor([known == asked for known, asked in pairs]).to(device)
        moved = (states.float() - states_known.float()).square().mean(dim=-1)
        kept = known_mask & same[:, None]
        parts = {
            "words": _apart(z, meant).mean(),
            "captions": _apart(z_asked, z_known).mean(),
            "drift": (moved * kept).sum() / kept.sum().clamp(min=1),
        }
        return {"loss": sum(parts.values()), **{k: v.detach() for k, v in parts.items()}}


def _apart(z: Tensor, other: Tensor) -> Tensor:
    return 1 - cosine_similarity(z.float(), other.float(), dim=-1)


def _parts(words: list[str]) -> list[list[str]]:
    quarter = -(-len(words) // 4)
    return [words[i : i + quarter] for i in range(0, len(words), quarter)]


def teach(
    folder: Path, run: Path, cache: Path, config: TrainingConfig, minutes: float | None
) -> None:
    """Teach the CLIP in ``folder``, in place once it is finished, or continue to.

    Prior and decoder have to be trained on it afterwards: they know CLIPs by both towers.

    Raises:
        TrainingError: ``run`` taught another CLIP.
    """
    before = load_stage(folder)
    lessons = Lessons(Scenes(cache, seed=config.seed), Dictionary(cache))
    report = train(
        load_stage(folder),
        Loader(lessons, config.batch, None, config.seed),
        config,
        run,
        objective=Reading(before, lessons),
        max_minutes=minutes,
    )
    if report.ending == "done":
        taught = load_stage(report.folder)
        if not _same(taught.network.image_tower(), before.network.image_tower()):
            raise TrainingError(f"{run} taught another CLIP than {folder}; remove {run} first")
        save_stage(taught, folder)
    logging.info("text: %s after %d captions", report.ending, report.images)


def _same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(
        torch.equal(weight.cpu(), theirs[key].cpu()) for key, weight in one.state_dict().items()
    )
