"""``unclip generate``: images from prompts."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unclip.cli.output import (
    Output,
    check_output,
    report,
    save_sheet,
    warn_of_other_bits,
)
from unclip.cli.progress import watch
from unclip.errors import CheckpointError, ImageError, PromptError
from unclip.options import GenerateOptions


def generate(
    *prompts: str,
    options: Annotated[
        GenerateOptions,
        Parameter(name="*", show_default=False),
    ] = GenerateOptions(),  # noqa: B008
    prompts_from: Annotated[
        str | None,
        Parameter(name="--prompts", allow_leading_hyphen=True),  # it may be "-"
    ] = None,
    like: Path | None = None,
    output: Output = Output(),  # noqa: B008
) -> None:
    """Draw images from prompts and save them as PNG, each with its recipe inside.

    Options that are not given take the model's own settings, which `unclip info --json` shows.

    For example:

        unclip generate "a red apple"
        unclip generate "a castle" -n 4 --decoder.guidance 3 -o castles
        unclip generate --prompts list.txt --sheet all.png
        unclip generate --like castle.png --seed 7

    Args:
        prompts: What to draw.
        prompts_from: A file with one prompt a line; `-` reads the standard input.
        like: A PNG made by this program: use its prompt, seed and options, unless given anew.
    """
    from unclip.pipeline import check_prompts

    pipeline = output.load()
    texts = [*prompts, *(_read_prompts(prompts_from) if prompts_from else [])]
    if like:
        recipe = _recipe(like, pipeline.fingerprint, output.model)
        texts = texts or [recipe["prompt"]]
        before = GenerateOptions.parse(recipe["options"], source=str(like))
        options = options.over(before.over(pipeline.defaults))
        warn_of_other_bits(like, recipe.get("computed"), pipeline.computed(1))
    check_prompts(texts)
    complete = options.over(pipeline.defaults)
    single = check_output(output.output, output.sheet, len(texts) * complete.images)
    made = []
    for group in _groups(texts, complete):
        for generated in watch(pipeline.stream(group, options)):
            path = output.name(single, generated.prompt, generated.seed)
            generated.save(path)
            made.append(generated)
            facts: dict[str, Any] = {"path": str(path), "prompt": generated.prompt}
            facts["seed"] = generated.seed
            score = generated.score
            said = "" if score is None else f"score {score:.3f}  "
            facts["score"] = None if score is None else round(score, 4)
            report(output.json_lines, f"{path}  {said}{generated.prompt}", facts)
    if sheet := output.sheet:
        captions = [generated.prompt for generated in made]
        save_sheet(sheet, [generated.image for generated in made], captions, made[0].recipe)
        report(output.json_lines, str(sheet), {"sheet": str(sheet)})


def _groups(prompts: Sequence[str], options: GenerateOptions) -> Iterator[list[str]]:
    """Prompts that fill a batch together, so that images are on disk as soon as they are done."""
    size = max(1, options.batch // options.images)
    for start in range(0, len(prompts), size):
        yield list(prompts[start : start + size])


def _read_prompts(source: str) -> list[str]:
    try:
        # Never in the locale's encoding, which on Windows has no Korean.
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = content.decode("utf-8-sig")
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
