"""How CLIPs read words of split S, in no caption: the concept among the 10 nearest of 1,000.

    python recipes/emoji/examine_words.py src/unclip/models/emoji/clip runs/emoji/clip

Nothing is drawn: a word's z_t is compared with that of the names of concepts. ``by the dictionary``
is the mean of what the first CLIP makes of the concepts that the dictionary gives for a word.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from candidates import Candidates
from dictionary import Dictionary
from held_out import held_out
from scenes import Scenes
from torch import Tensor

from unclip.checkpoint import load_stage
from unclip.clip.clip import Clip
from unclip.evaluation.retrieval import best_ranks
from unclip.evaluation.statistics import share

COUNT = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, nargs="+", help="stage folders")
    parser.add_argument("--cache", type=Path, default=Path("cache/emoji"))
    arguments = parser.parse_args()
    clips = {str(folder): load_stage(folder) for folder in arguments.clips}
    scenes, first = Scenes(arguments.cache), next(iter(clips.values()))
    by_dictionary = Meant(first, scenes, Dictionary(arguments.cache))
    readers = {"by the dictionary": by_dictionary, **{k: Reader(v) for k, v in clips.items()}}
    for split, language in (("S", "English"), ("S ko", "Korean")):
        for name, read in readers.items():
            if split == "S" or read is not by_dictionary:
                print(f"{language}, {name}: {examine(read, scenes, split)}")


class Reader:
    """Texts to z_t, each text once."""

    def __init__(self, clip: Clip) -> None:
        self.clip, self._known = clip, {}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            z = self.clip.encode_text(part, warn=False).embedding.cpu()
            self._known.update(zip(part, z, strict=True))
        return torch.stack([self._known[text] for text in texts])


class Meant(Reader):
    """The same, but words of the dictionary are the mean of the concepts they may stand for."""

    def __init__(self, clip: Clip, scenes: Scenes, dictionary: Dictionary) -> None:
        super().__init__(clip)
        names = {row.concept: row.names["en"][0] for row in reversed(scenes.atlas.rows)}
        held = {q.caption for q in held_out(scenes, "S", COUNT)}
        for number, word in enumerate(dictionary.words):
            if word in held:
                concepts, weights = dictionary.meanings(number)
                z = self([names[concept] for concept in concepts])
                self._known[word] = torch.tensor(weights) @ z


def examine(read: Callable[[Sequence[str]], Tensor], scenes: Scenes, split: str) -> str:
    """Share of words that are read rightly, with its standard error."""
    questions, candidates = held_out(scenes, split, COUNT), Candidates(scenes)
    lists = [candidates.words(q.concepts, q.key) for q in questions]
    right = [
        [c.concept in q.concepts for c in some] for q, some in zip(questions, lists, strict=True)
    ]
    words = read([q.caption for q in questions])
    similar = [read([c.caption for c in some]) @ z for some, z in zip(lists, words, strict=True)]
    return str(share(best_ranks(torch.stack(similar), torch.tensor(right)) < 10))


if __name__ == "__main__":
    main()
