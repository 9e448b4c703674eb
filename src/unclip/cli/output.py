"""What commands that draw share: the machine, where pictures go, and what is printed."""

import json
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from unclip.cli.progress import found, watch
from unclip.errors import ImageError, OptionError

if TYPE_CHECKING:
    from unclip.manipulation.made import Made, Making
    from unclip.pipeline import UnCLIP

_GROUP = Group("Model and output", sort_key=0)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class Machine:
    """Which model, and where it computes."""

    model: Annotated[
        str,
        Parameter(
            alias="-m",
            help="A shipped model's name, a model folder, or a published model: see import.",
        ),
    ] = "emoji"
    device: Annotated[str | None, Parameter(help="auto, cpu, cuda or mps.")] = None
    precision: Annotated[str | None, Parameter(help="auto, bf16 or fp32.")] = None
    low_memory: Annotated[
        bool | None,
        Parameter(
            negative="--no-low-memory",
            help="Hold only the stage that is working in memory, or (--no-low-memory) all once "
            "used. Unset: all of a model of up to 2 GiB.",
        ),
    ] = None

    def load(self) -> "UnCLIP":
        """Open the model."""
        from unclip.loading import RESIDENCY, load
        from unclip.runtime import choose_runtime

        runtime = choose_runtime(self.device, self.precision)
        return load(found(self.model), runtime, RESIDENCY[self.low_memory])


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class Output(Machine):
    """The machine, and where its pictures go."""

    output: Annotated[
        Path,
        Parameter(
            alias="-o",
            help="A folder, or the PNG to write when there is one image. Nothing is overwritten.",
        ),
    ] = Path(".")
    sheet: Annotated[
        Path | None, Parameter(help="Also write one PNG with all images and their labels.")
    ] = None
    json_lines: Annotated[
        bool,
        Parameter(
            name="--json",
            show_default=False,
            help="Print one JSON object per image instead of a line of text.",
        ),
    ] = False

    def name(self, single: bool, words: str, seed: int | None = None) -> Path:
        """Where the next picture goes, named after ``words`` unless it is the single one."""
        return self.output if single else free_name(self.output, words, seed)


@Parameter(name="*", group=_GROUP)
@dataclass(frozen=True)
class Studio(Output):
    """A machine that makes pictures of pictures."""

    embed_inputs: Annotated[
        bool,
        Parameter(
            show_default=False,
            help="Store the files an image was made from inside its PNG, for `unclip again`.",
        ),
    ] = False

    def run(
        self, making: "Making", stem: str, images: int, columns: int | None = None
    ) -> "list[Made]":
        """Draw under a progress bar, then save and report each picture.

        Args:
            making: the manipulation.
            stem: what files in a folder are named after.
            images: how many there will be.
            columns: of the sheet.
        """
        single = check_output(self.output, self.sheet, images)
        made = watch(making)
        for picture in made:
            path = self.name(single, f"{stem} {_plain(picture.label)}")
            picture.save(path, embed_inputs=self.embed_inputs)
            facts = {"path": str(path), "label": picture.label}
            report(self.json_lines, f"{path}  {picture.label}", facts)
        if self.sheet:
            labels = [picture.label for picture in made]
            pictures = [picture.image for picture in made]
            save_sheet(self.sheet, pictures, labels, made[0].recipe, columns)
            self.report("sheet", self.sheet)
        return made

    def report(self, what: str, path: Path) -> None:
        """Say that a file that is no picture of its own is written."""
        report(self.json_lines, str(path), {what: str(path)})


def _plain(label: str) -> str:
    """A label in letters that any file system takes."""
    return label.replace("θ", "theta").replace("×", "x")


def report(as_json: bool, line: str, facts: dict[str, Any]) -> None:
    """Print a line for people, or its facts for programs."""
    print(json.dumps(facts, ensure_ascii=False) if as_json else line, flush=True)


def save_sheet(
    path: Path,
    images: Sequence[Any],
    captions: Sequence[str],
    recipe: dict[str, Any],
    columns: int | None = None,
) -> None:
    """Write a contact sheet, as square as may be."""
    from unclip.images import contact_sheet, save_png

    columns = columns or math.ceil(math.sqrt(len(images)))
    picture = contact_sheet(images, columns, captions)
    save_png(picture, path, {"software": recipe["software"], "command": "sheet"})


def warn_of_other_bits(image: Path, then: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Say why the same recipe may not give the same pixels."""
    changed = [
        f"{name} {then[name]}, now {now[name]}"
        for name in now
        if then and name in then and then[name] != now[name]
    ]
    if changed:
        warnings.warn(
            f"{image} was computed with {'; '.join(changed)}: expect small differences",
            stacklevel=2,
        )


def check_output(output: Path, sheet: Path | None, images: int) -> bool:
    """Whether ``output`` names the one image; find out now, not after minutes of drawing."""
    from unclip.images import SUFFIXES, check_new

    ending = output.suffix.lower().lstrip(".")
    single = ending == "png" and not output.is_dir()
    if single and images > 1:
        raise OptionError(f"--output {output} is one file, but {images} images: give a folder")
    if not single and (output.is_file() or (ending in SUFFIXES and not output.is_dir())):
        raise OptionError(f"--output {output}: images are PNG, give a folder or NAME.png")
    if single and sheet and output.resolve() == sheet.resolve():
        raise OptionError(f"--output and --sheet are both {output}; give the sheet another name")
    for file in (output if single else None, sheet):
        if file:
            check_new(file)
    if not single:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{output} cannot be made: {error.strerror}") from None
    return single


def free_name(folder: Path, words: str, number: int | None = None) -> Path:
    """A PNG in ``folder`` that is not there yet, named after words and a number."""
    stem = re.sub(r"[^\w]+", "-", words.lower()).strip("-")[:60].strip("-") or "image"
    stem = stem if number is None else f"{stem}-{number}"
    path = folder / f"{stem}.png"
    count = 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}.png"
    return path
