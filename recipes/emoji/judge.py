"""The evaluator and the model it judges: draws pictures for questions, keeps them, embeds them.

Knows no measure and no split.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from held_out import Question
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from unclip.clip.clip import Clip
from unclip.evaluation.drawing import draw, draw_into, pixels, side_by_side, stacked
from unclip.images import contact_sheet, decode
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.types import finish

Pictures = UInt8[np.ndarray, "n h w 3"]

BATCH = 32
SHOWN = 32
_SHEET_SIDE = 128


class Eyes:
    """An evaluator: embeds pictures, and captions once each."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._texts: dict[str, Tensor] = {}

    def see(self, pictures: Pictures) -> Float[Tensor, "n d"]:
        """Embed pictures."""
        parts = [
            self.clip.encode_image(stacked(pictures[i : i + BATCH]))
            for i in range(0, len(pictures), BATCH)
        ]
        return torch.cat(parts).cpu()

    def read(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Embed captions."""
        new = [words for words in dict.fromkeys(captions) if words not in self._texts]
        for start in range(0, len(new), 256):
            part = new[start : start + 256]
            rows = self.clip.encode_text(part, warn=False).embedding.cpu()
            self._texts.update(zip(part, rows, strict=True))
        return torch.stack([self._texts[words] for words in captions])


class Judge(Eyes):
    """The evaluator, and whom it judges.

    Args:
        model: the model.
        clip: the evaluator.
        folder: where drawn pictures are kept, so that an interrupted evaluation goes on.
        seed: of all that is drawn.
        tell: called with a line whenever something is done.
    """

    def __init__(
        self,
        model: UnCLIP,
        clip: Clip,
        folder: Path,
        seed: int = 0,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        super().__init__(clip)
        self.model, self.folder, self.seed, self.tell = model, folder, seed, tell
        self.sheets: dict[str, Image.Image] = {}

    def options(self, size: int = 64) -> GenerateOptions:
        """The model's own defaults at a size."""
        return GenerateOptions(size=size, batch=BATCH if size == 64 else 4).over(
            self.model.defaults
        )

    def draw(
        self,
        name: str,
        questions: Sequence[Question],
        captions: Sequence[str] | None = None,
        size: int = 64,
    ) -> Pictures:
        """One picture for each question, of 8 bits like any picture that is saved.

        Args:
            name: of the pictures' folder.
            questions: what to draw.
            captions: other words for the questions than their own.
            size: pixels a side.
        """
        captions = captions or [question.caption for question in questions]
        keys = [question.key for question in questions]
        at = self.folder / f"{name.replace(' ', '-')}-{size}-{len(questions)}"
        options = self.options(size)
        files = finish(draw_into(at, self.model, captions, keys, options, self.seed))
        self.tell(f"{name}: {len(files)} pictures of {size} px")
        return np.stack([np.asarray(decode(file)) for file in files])

    def show(self, about: str, questions: Sequence[Question], *kinds: Pictures) -> None:
        """Keep a sheet of the first pictures: in each cell the real one, then what was drawn."""
        cells = side_by_side(kinds, SHOWN)
        side = cells[0].height
        if side != _SHEET_SIDE:
            size = (cells[0].width * _SHEET_SIDE // side, _SHEET_SIDE)
            cells = [cell.resize(size, 0 if side < _SHEET_SIDE else 1) for cell in cells]
        words = [question.caption for question in questions[: len(cells)]]
        self.sheets[about] = contact_sheet(cells, 4, words)


class FromPictures(Judge):
    """The same, but each z_i is CLIP's of the real picture: what a perfect prior would lead to."""

    def draw(
        self,
        name: str,
        questions: Sequence[Question],
        captions: Sequence[str] | None = None,
        size: int = 64,
    ) -> Pictures:
        """One picture for each question, see `Judge.draw`; not kept."""
        captions = captions or [question.caption for question in questions]
        options, drawn = self.options(size), []
        for start in range(0, len(questions), BATCH):
            part = questions[start : start + BATCH]
            z = self.model.encode_image(stacked([question.image for question in part]))
            keys, words = [question.key for question in part], captions[start : start + BATCH]
            drawn.append(pixels(finish(draw(self.model, words, keys, options, self.seed, z))))
        self.tell(f"{name}: {len(questions)} pictures of {size} px, from real ones' z_i")
        return np.concatenate(drawn)


class BestOf(Judge):
    """The same, but of four pictures for each question the one the model's own CLIP prefers."""

    pictures = 4

    def draw(
        self,
        name: str,
        questions: Sequence[Question],
        captions: Sequence[str] | None = None,
        size: int = 64,
    ) -> Pictures:
        """One picture for each question, see `Judge.draw`; each of the others has another seed."""
        captions = captions or [question.caption for question in questions]
        drawn, scores = [], []
        for seed in range(self.seed, self.seed + self.pictures):
            one = Judge(self.model, self.clip, self.folder / str(seed), seed, self.tell)
            pictures = one.draw(name, questions, captions, size)
            drawn.append(pictures)
            scores.append(self._liked(pictures, captions))
        best = torch.stack(scores).argmax(dim=0).tolist()
        return np.stack([drawn[seed][i] for i, seed in enumerate(best)])

    def _liked(self, pictures: Pictures, captions: Sequence[str]) -> Float[Tensor, " n"]:
        """CLIP scores by the model's own CLIP."""
        parts = []
        for start in range(0, len(pictures), BATCH):
            z = self.model.encode_image(stacked(pictures[start : start + BATCH]))
            text = self.model.encode_text(captions[start : start + BATCH]).embedding
            parts.append(torch.cosine_similarity(z.float(), text.float()).cpu())
        return torch.cat(parts)


def images(questions: Sequence[Question]) -> Pictures:
    """The real pictures of questions."""
    return np.stack([question.image for question in questions])
