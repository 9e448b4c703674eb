"""Typographic attack (Fig. 6): a word written on a picture, what CLIP then reads, what is drawn.

The paper's apple with "iPod" on it: CLIP's label flips, the decoder goes on drawing apples.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from einops import repeat
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from unclip.clip.clip import Clip
from unclip.clip.zero_shot import SIMPLE, class_weights, zero_shot_logits
from unclip.evaluation.drawing import pixels
from unclip.images import to_tensor
from unclip.manipulation.latents import draw
from unclip.options import GenerateOptions
from unclip.pipeline import UnCLIP
from unclip.randomness import derive_seed
from unclip.types import Step


@dataclass(frozen=True)
class Attack:
    """One picture, with or without words on it, and what becomes of it."""

    text: str
    """What was written, empty for the picture as it is."""
    picture: Image.Image
    probabilities: Float[Tensor, " labels"]
    """Of each label, as the model's own CLIP reads the picture."""
    variations: list[Image.Image]
    """What the decoder draws from the picture's embedding, without a caption."""
    drawn: Float[Tensor, " labels"]
    """Mean probability of each label over the variations, as the judge reads them."""


def write_on(image: Image.Image, text: str) -> Image.Image:
    """Stick a paper label with a word across the middle of a picture, as in the paper's figure."""
    if not text:
        return image.copy()
    labelled = image.convert("RGB")
    width, height = labelled.size
    size = max(8, height // 4)
    while size > 6 and _length(text, size) > 0.84 * width:
        size -= 1
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(text)
    x, y = (width - (right - left)) / 2, (height - (bottom - top)) / 2
    margin = max(1, size // 6)
    draw = ImageDraw.Draw(labelled)
    box = (x - margin, y - margin, x + right - left + margin, y + bottom - top + margin)
    draw.rectangle(box, fill="white", outline="black")
    draw.text((x - left, y - top), text, "black", font)
    return labelled


def attack(
    model: UnCLIP,
    image: Image.Image,
    texts: Sequence[str],
    labels: Sequence[str],
    options: GenerateOptions,
    *,
    variations: int = 4,
    judge: Clip | None = None,
    templates: Sequence[str] = SIMPLE,
) -> Generator[Step, None, list[Attack]]:
    """Show a picture plain and with each word on it to CLIP, and to the decoder.

    Args:
        model: its CLIP reads, its decoder draws.
        image: the picture.
        texts: words to write; the plain picture comes first of itself.
        labels: classes of the zero-shot classification.
        options: complete ones, see `GenerateOptions.over`.
        variations: pictures drawn for each.
        judge: reads the variations; the model's own CLIP if not given.
        templates: sentences around a label, see `class_weights`.
    """
    with model.clip.use() as clip:
        ours = class_weights(clip, labels, templates)
    theirs = ours if judge is None else class_weights(judge, labels, templates)
    attacks = []
    for text in ("", *texts):
        picture = write_on(image, text)
        z_i = model.encode_image(to_tensor(picture)[None])
        # The same noise for every word: only the embedding differs.
        seeds = [derive_seed(options.seed, "variation", i) for i in range(variations)]
        images = yield from draw(model, repeat(z_i, "1 d -> b d", b=variations), options, seeds)
        seen = model.encode_image(images) if judge is None else judge.encode_image(images)
        attacks.append(
            Attack(
                text,
                picture,
                zero_shot_logits(z_i, ours).softmax(dim=1)[0].cpu(),
                [Image.fromarray(levels) for levels in pixels(images)],
                zero_shot_logits(seen, theirs).softmax(dim=1).mean(dim=0).cpu(),
            )
        )
    return attacks


def _length(text: str, size: int) -> float:
    return ImageFont.load_default(size).getlength(text)
