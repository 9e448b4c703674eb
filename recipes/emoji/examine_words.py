"""How CLIPs read words of split S, in no picture's caption: right concept in the top 10 of 1,000.

    python recipes/emoji/examine_words.py src/unclip/models/emoji/clip runs/emoji/clip

Nothing is drawn: a word's z_t is compared with that of the names of concepts. ``by the dictionary``
is the mean of what the first CLIP makes of the concepts that the dictionary gives for a word; words
that it lacks are read by that CLIP.
"""

import argparse
from pathlib import Path

import torch
from candidates import Candidates
from dictionary import Dictionary
from held_out import held_out
from judge import Eyes
from scenes import Scenes
from scores import among_nearest, meanings

from unclip.checkpoint import load_stage
from unclip.clip.clip import Clip
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
    readers = {"by the dictionary": by_dictionary, **{k: Eyes(v) for k, v in clips.items()}}
    for split, language in (("S", "English"), ("S ko", "Korean")):
        for name, reader in readers.items():
            if split == "S" or reader is not by_dictionary:
                print(f"{language}, {name}: {examine(reader, scenes, split)}")


class Meant(Eyes):
    """The same, but words of the dictionary are the mean of the concepts they may stand for."""

    def __init__(self, clip: Clip, scenes: Scenes, dictionary: Dictionary) -> None:
        super().__init__(clip)
        names = {row.concept: row.names["en"][0] for row in reversed(scenes.atlas.rows)}
        held = {q.caption for q in held_out(scenes, "S", COUNT)}
        for number, word in enumerate(dictionary.words):
            if word in held:
                concepts, weights = dictionary.meanings(number)
                z = self.read([names[concept] for concept in concepts])
                self._texts[word] = torch.tensor(weights) @ z


def examine(reader: Eyes, scenes: Scenes, split: str) -> str:
    """Share of words that are read rightly, with its standard error."""
    questions = held_out(scenes, split, COUNT)
    lists, right = meanings(Candidates(scenes), questions)
    words = reader.read([question.caption for question in questions])
    return str(share(among_nearest(reader, words, lists, right)))


if __name__ == "__main__":
    main()
