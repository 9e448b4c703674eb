"""``unclip generate``: images from prompts."""

import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unclip.cli.progress import watch
from unclip.errors import CheckpointError, ImageError, OptionError, PromptError
from unclip.options import GenerateOptions


def generate(
    *prompts: str,
    options: Annotated[GenerateOptions, Parameter(name="*")] = GenerateOptions(),  # noqa: B008
    model: Annotated[str, Parameter(alias="-m")] = "emoji",
    output: Annotated[Path, Parameter(alias="-o")] = Path("."),
    prompts_from: Annotated[str | None, Parameter(name="--prompts")] = None,
    like: Path | None = None,
    sheet: Path | None = None,
    json_lines: Annotated[bool, Parameter(name="--json", negative="")] = False,
    device: str | None = None,
    precision: str | None = None,
    low_memory: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Draw images from prompts and save them as PNG, each with its recipe inside.

    Examples:
        unclip generate "a red apple"

        unclip generate "a castle" -n 4 --decoder.guidance 3 -o castles

        unclip generate --prompts list.txt --sheet all.png

    Parameters
    ----------
    prompts:
        What to draw.
    model:
        A shipped model's name, or a model folder.
    output:
        A folder, or the PNG to write when there is one image. Nothing is overwritten.
    prompts_from:
        A file with one prompt a line; ``-`` reads the standard input.
    like:
        A PNG made by this program: use its prompt, seed and options, as far as none are given.
    sheet:
        Also write one PNG with all images and their prompts.
    json_lines:
        Print one JSON object per image instead of a line of text.
    device:
        auto, cpu, cuda or mps.
    precision:
        auto, bf16 or fp32.
    low_memory:
        Hold only the stage that is working in memory.
    """
    from unclip.images import contact_sheet, save_png
    from unclip.load import load
    from unclip.runtime import choose_runtime

    pipeline = load(model, choose_runtime(device, precision), "one" if low_memory else "all")
    texts = [*prompts, *(_read_prompts(prompts_from) if prompts_from else [])]
    if like:
        recipe = _recipe(like, pipeline.fingerprint, model)
        texts = texts or [recipe["prompt"]]
        options = options.over(GenerateOptions.parse(recipe["options"], source=str(like)))
    if not texts:
        raise PromptError("no prompt given; say in words what to draw, or see --prompts")
    single = _check_output(output, sheet, len(texts) * options.images)

    (output.parent if single else output).mkdir(parents=True, exist_ok=True)
    made = []
    for group in _groups(texts, options.over(pipeline.defaults)):
        for generated in watch(pipeline.stream(group, options), " · ".join(group)):
            path = output if single else _free_name(output, generated.prompt, generated.seed)
            generated.save(path)
            made.append(generated)
            report = {"path": str(path), "prompt": generated.prompt, "seed": generated.seed}
            if json_lines:
                score = round(generated.score, 4)
                print(json.dumps({**report, "score": score}, ensure_ascii=False), flush=True)
            else:
                print(f"{path}  score {generated.score:.3f}  {generated.prompt}", flush=True)
    if sheet:
        columns = math.ceil(math.sqrt(len(made)))
        captions = [generated.prompt for generated in made]
        pictures = contact_sheet([generated.image for generated in made], columns, captions)
        save_png(pictures, sheet, {"software": made[0].recipe["software"], "command": "sheet"})
        print(sheet)


def _groups(prompts: Sequence[str], options: GenerateOptions) -> Iterator[list[str]]:
    """Prompts that fill a batch together, so that images are on disk as soon as they are done."""
    size = max(1, options.batch // options.images)
    for start in range(0, len(prompts), size):
        yield list(prompts[start : start + size])


def _read_prompts(source: str) -> list[str]:
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"the prompts in {source} cannot be read: {error}") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise PromptError(f"{source} holds no prompt; write one a line")
    return prompts


def _recipe(image: Path, fingerprint: str, model: str) -> dict[str, Any]:
    from unclip.images import read_recipe

    recipe = read_recipe(image)
    if "prompt" not in recipe or "options" not in recipe:
        raise ImageError(f"{image} was not made by `unclip generate`")
    if recipe.get("fingerprint") != fingerprint:
        raise CheckpointError(
            f"{image} was drawn by model {recipe.get('model')} ({recipe.get('fingerprint')}), "
            f"{model} is another ({fingerprint}); name the right one with --model"
        )
    return recipe


def _check_output(output: Path, sheet: Path | None, images: int) -> bool:
    """Whether ``output`` names the one image; find out now, not after minutes of drawing."""
    single = output.suffix.lower() == ".png" and not output.is_dir()
    if single and images > 1:
        raise OptionError(f"--output {output} is one file, but {images} images: give a folder")
    for file in (output if single else None, sheet):
        if file and file.exists():
            raise ImageError(f"{file} exists and is never overwritten; choose another name")
    if output.is_file() and not single:
        raise OptionError(f"--output {output} is a file and no PNG: give a folder or NAME.png")
    return single


def _free_name(folder: Path, prompt: str, seed: int) -> Path:
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-")[:60].strip("-") or "image"
    path = folder / f"{words}-{seed}.png"
    count = 1
    while path.exists():
        count += 1
        path = folder / f"{words}-{seed}-{count}.png"
    return path
