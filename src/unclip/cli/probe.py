"""``unclip probe`` and ``unclip neighbours``: what CLIP's image features know."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from unclip.cli.clip_choice import Reader
from unclip.cli.progress import watch
from unclip.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from unclip.clip.clip import Clip

_READER = Reader()


def probe(
    data: Path,
    /,
    *,
    test: Path | None = None,
    json_output: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    reader: Reader = _READER,
) -> None:
    """Train a linear classifier on CLIP's image features: how good are they for a task?

    The folder has one subfolder of images for each label. A fifth of each label's images chooses
    the regularisation; without --test another fifth is kept for testing.

    For example:

        unclip probe flowers
        unclip probe flowers/train --test flowers/test --model other-clip

    Args:
        data: A folder of folders of images.
        test: Another one with the same labels, to test on.
        json_output: Print JSON.
    """
    from unclip.clip.linear_probe import linear_probe
    from unclip.evaluation.labelled import embed_labelled, labels_of, split

    labels = labels_of(data)
    if test is not None and (missing := sorted(set(labels_of(test)) ^ set(labels))):
        raise DataError(f"{test} and {data} differ in the label {missing[0]}")
    clip = reader.open()
    rows = watch(embed_labelled(clip, data, labels))
    if test is None:
        train, validation, tested = split(rows, 3)
    else:
        train, validation = split(rows, 2)
        tested = watch(embed_labelled(clip, test, labels))
    fitted = linear_probe(train.pair, validation.pair)
    score = _accuracy(fitted.predict(tested.features), tested.labels)
    facts = {
        "accuracy": round(score[0], 6),
        "standard_error": round(score[1], 6),
        "tested": len(tested.labels),
        "trained": len(train.labels) + len(validation.labels),
        "labels": len(labels),
        "strength": fitted.strength,
    }
    if json_output:
        print(json.dumps(facts))
    else:
        print(
            f"accuracy {score[0]:.1%} ± {score[1]:.1%} on {facts['tested']} images of "
            f"{len(labels)} labels, trained on {facts['trained']}, "
            f"L2 strength {fitted.strength:.3g}"
        )


def neighbours(
    query: str,
    folder: Path,
    /,
    *,
    count: Annotated[int, Parameter(alias="-n")] = 10,
    sheet: Path | None = None,
    json_lines: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
    reader: Reader = _READER,
) -> None:
    """Find the images of a folder that are nearest to an image or to a text.

    Embeddings are kept in the user's cache: the second search is quick, and after a change of
    the folder only what is new is embedded.

    For example:

        unclip neighbours "a red apple" photos
        unclip neighbours apple.png photos -n 20 --sheet apples.png

    Args:
        query: An image file, or words.
        folder: Images, in any depth.
        count: Images to find.
        sheet: Also write one PNG with what was found.
        json_lines: Print one JSON object per image instead of a line of text.
    """
    from unclip.evaluation.neighbours import index_folder
    from unclip.identity import identify
    from unclip.images import check_new

    if count < 1:
        raise OptionError(f"--count {count}: one at least")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    if sheet is not None:
        check_new(sheet)
    clip = reader.open()
    wanted = _query(clip, query)
    fingerprint = identify(clip.state_dict().items()).image or "none"
    index = watch(index_folder(clip, fingerprint, folder))
    if index.skipped:
        first = index.skipped[0]
        warnings.warn(
            f"files that cannot be read: {len(index.skipped)}, such as {first}", stacklevel=2
        )
    found = index.nearest(wanted, count)
    for path, cosine in found:
        facts = {"path": str(path), "cosine": round(cosine, 6)}
        print(json.dumps(facts, ensure_ascii=False) if json_lines else f"{cosine:.3f}  {path}")
    if sheet is not None:
        _save_sheet(sheet, found)


def _query(clip: "Clip", query: str) -> "Tensor":
    from unclip.images import to_tensor
    from unclip.manipulation.inputs import Input, read_item
    from unclip.pipeline import check_prompts

    item = read_item(query)
    if isinstance(item, Input):
        return clip.encode_image(to_tensor(item.image)[None])[0]
    check_prompts([query])
    return clip.encode_text([query]).embedding[0]


def _accuracy(predicted: "Tensor", labels: "Tensor") -> tuple[float, float]:
    from unclip.evaluation.statistics import share

    score = share(predicted == labels)
    return score.value, score.standard_error


def _save_sheet(path: Path, found: list[tuple[Path, float]]) -> None:
    from unclip.images import centre_crop, contact_sheet, decode, resize, save_png

    cells = [centre_crop(resize(decode(name), 128), 128) for name, _ in found]
    words = [f"{cosine:.3f} {name.name}" for name, cosine in found]
    save_png(contact_sheet(cells, 5, words), path, {"command": "neighbours"})
