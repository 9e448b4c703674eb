"""``unclip classify`` and ``unclip attack``: zero-shot classification, and how words mislead it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from unclip.cli.clip_choice import Reader, image_paths
from unclip.cli.manipulate import Flat
from unclip.cli.output import Machine
from unclip.cli.progress import watch
from unclip.errors import OptionError
from unclip.options import Drawing

if TYPE_CHECKING:
    from PIL import Image

    from unclip.clip.clip import Clip
    from unclip.evaluation.typography import Attack

Labels = Annotated[list[str], Parameter(consume_multiple=True)]
Sentences = Literal["ensemble", "simple", "none"]
_BATCH = 16
_MACHINE, _READER, _OPTIONS = Machine(), Reader(), Drawing()


def classify(
    *images: Path,
    labels: Labels,
    template: Annotated[list[str] | None, Parameter(show_default=False)] = None,
    sentences: Sentences = "ensemble",
    top: int = 3,
    json_lines: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    reader: Reader = _READER,
) -> None:
    """Tell which of some labels fits an image best, without training: CLIP's zero-shot way.

    For example:

        unclip classify cat.png --labels cat dog bird
        unclip classify photos --labels cat dog --template "a drawing of a {}" --json

    Args:
        images: Image files, or folders of them.
        labels: Names of the classes; of several words in quotes.
        template: A sentence with {} where the label goes, instead of the built-in ones;
            repeatable.
        sentences: Built-in sentences: an ensemble of sixteen, a simple one, or the bare label.
        top: Labels to print for each image, the likeliest first.
        json_lines: Print one JSON object per image, with every probability.
    """
    import torch

    from unclip.clip.zero_shot import class_weights, zero_shot_logits

    if top < 1:
        raise OptionError(f"--top {top}: one at least")
    paths = image_paths(images)
    names = _labels(labels)
    clip = reader.open()
    weights = class_weights(clip, names, _templates(template, sentences))
    for batch, pixels in _pictures(paths, clip):
        logits = zero_shot_logits(clip.encode_image(torch.stack(pixels)), weights)
        for path, row in zip(batch, logits.softmax(dim=1).tolist(), strict=True):
            ranked = sorted(zip(names, row, strict=True), key=lambda pair: -pair[1])
            if json_lines:
                facts = {"path": str(path), "probabilities": {n: round(p, 6) for n, p in ranked}}
                print(json.dumps(facts, ensure_ascii=False), flush=True)
            else:
                said = "  ".join(f"{name} {share:.1%}" for name, share in ranked[:top])
                print(f"{path}  {said}", flush=True)


def attack(
    image: Path,
    /,
    *texts: str,
    labels: Labels,
    template: Annotated[list[str] | None, Parameter(show_default=False)] = None,
    sentences: Sentences = "simple",
    variations: int = 4,
    sheet: Path | None = None,
    json_output: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    options: Annotated[Drawing, Flat] = _OPTIONS,
    machine: Machine = _MACHINE,
) -> None:
    """Write words on an image; show what CLIP then reads and what the decoder draws (Fig. 6).

    For example:

        unclip attack apple.png iPod pizza --labels apple iPod pizza --sheet attack.png

    Args:
        image: An image file.
        texts: Words to write on it, one picture each; the plain picture comes first.
        labels: Names of the classes to choose from.
        template: A sentence with {} where the label goes, instead of the built-in ones;
            repeatable.
        sentences: Built-in sentences: an ensemble of sixteen, a simple one, or the bare label.
        variations: Images drawn from each picture's embedding.
        sheet: PNG to write: each picture with its variations.
        json_output: Print JSON.
    """
    from unclip.evaluation.typography import attack as run
    from unclip.images import check_new, contact_sheet, decode, save_png

    if not texts:
        raise OptionError("no word given; name the words to write on the image")
    if variations < 1:
        raise OptionError(f"--variations {variations}: one at least")
    names = _labels(labels)
    if sheet is not None:
        check_new(sheet)
    picture = decode(image)
    pipeline = machine.load()
    attacks: list[Attack] = watch(
        run(
            pipeline,
            picture,
            texts,
            names,
            pipeline.complete(options.asked()),
            variations=variations,
            templates=_templates(template, sentences),
        )
    )
    facts = [_facts(a, names) for a in attacks]
    if sheet is not None:
        cells, words = _cells(attacks)
        save_png(contact_sheet(cells, 1 + variations, words), sheet, {"command": "attack"})
    if json_output:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    for fact in facts:
        for who in ("read", "drawn"):
            said = "  ".join(f"{name} {share:.1%}" for name, share in fact[who].items())
            print(f"{fact['text'] or '(plain)':<12} {who:<6} {said}")


def _facts(found: "Attack", labels: Sequence[str]) -> dict:
    def shares(row: list[float]) -> dict[str, float]:
        return {name: round(share, 6) for name, share in zip(labels, row, strict=True)}

    return {
        "text": found.text,
        "read": shares(found.probabilities.tolist()),
        "drawn": shares(found.drawn.tolist()),
    }


def _cells(attacks: "Sequence[Attack]") -> "tuple[list[Image.Image], list[str]]":
    cells, words = [], []
    for found in attacks:
        side = found.variations[0].width
        cells += [found.picture.resize((side, side)), *found.variations]
        words += [found.text or "plain", *[""] * len(found.variations)]
    return cells, words


def _labels(labels: Sequence[str]) -> list[str]:
    names = [name.strip() for name in labels if name.strip()]
    if len(names) < 2:
        raise OptionError("--labels: two labels at least, such as --labels cat dog")
    if len(set(names)) < len(names):
        raise OptionError("--labels: a label is named twice")
    return names


def _templates(own: Sequence[str] | None, sentences: Sentences) -> Sequence[str]:
    from unclip.clip.zero_shot import ENSEMBLE, SIMPLE

    return (
        tuple(own) if own else {"ensemble": ENSEMBLE, "simple": SIMPLE, "none": ("{}",)}[sentences]
    )


def _pictures(paths: Sequence[Path], clip: "Clip") -> Iterator[tuple[list[Path], list]]:
    """Batches of pictures in the size the CLIP reads."""
    from unclip.clip.pixels import square
    from unclip.images import decode, to_tensor

    side = clip.config.image.size if clip.config.image is not None else 224
    for start in range(0, len(paths), _BATCH):
        part = list(paths[start : start + _BATCH])
        fit = clip.config.fit
        yield part, [square(to_tensor(decode(path))[None], side, fit)[0] for path in part]
