"""``unclip again``: an image made once more from its own PNG."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from unclip.cli.output import check_output, free_name, warn_of_other_bits
from unclip.cli.progress import found, watch


def again(
    image: Path,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")] = Path("."),
    inputs: Annotated[list[Path] | None, Parameter(name="--input")] = None,
    model: Annotated[str | None, Parameter(alias="-m")] = None,
    device: str | None = None,
    precision: str | None = None,
    low_memory: Annotated[bool | None, Parameter(negative="--no-low-memory")] = None,
) -> None:
    """Make an image again from the recipe in its PNG, and the files that the recipe names.

    For example:

        unclip again cat-varied-seed-0.png --input cat.png -o same.png

    Args:
        image: A PNG made by any command.
        output: A folder, or the PNG to write. Nothing is overwritten.
        inputs: Files it was made from, where they do not lie beside it or here; repeatable. They
            are refused if their content is another than it was.
        model: The model's name or folder; the name in the recipe if not given.
        device: auto, cpu, cuda or mps.
        precision: auto, bf16 or fp32.
        low_memory: Hold only the stage that is working in memory, or all once used.
    """
    from unclip.errors import ImageError
    from unclip.images import read_recipe
    from unclip.loading import RESIDENCY, load
    from unclip.manipulation.replay import again, check_model
    from unclip.runtime import choose_runtime

    recipe = read_recipe(image)
    if "model" not in recipe:
        raise ImageError(
            f"{image} is a sheet, which has no recipe of its own: make the pictures on it again "
            "one by one"
        )
    single = check_output(output, None, 1)
    runtime = choose_runtime(device, precision)
    folder = found(model) if model else _maker(image, str(recipe["model"]))
    pipeline = load(folder, runtime, RESIDENCY[low_memory])
    check_model(pipeline, recipe, str(image))
    then = recipe.get("computed")
    then = then if isinstance(then, dict) else {}
    # Manipulations are repeated in their own batches, a generated image alone.
    batch = 1 if recipe.get("command") == "generate" else then.get("batch", 1)
    warn_of_other_bits(image, then, pipeline.computed(batch))
    folders = (image.absolute().parent, Path.cwd())
    making = again(pipeline, recipe, name=str(image), folders=folders, inputs=tuple(inputs or ()))
    made = watch(making)
    path = output if single else free_name(output, f"{image.stem} again")
    made.save(path)
    print(path)


def _maker(image: Path, name: str) -> Path:
    """The folder of the model that a recipe names; one's own are known by their folders alone."""
    from unclip.errors import CheckpointError

    try:
        return found(name)
    except CheckpointError as error:
        why = f" ({error})" if "/" in name else ""  # what the Hub says
        raise CheckpointError(
            f"{image} was drawn by the model {name!r}, which is not found by its name: give its "
            f"folder with --model{why}"
        ) from None
