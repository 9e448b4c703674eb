"""Pictures made again from their recipe: the same model, the same inputs, the same options."""

from collections.abc import Generator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from unclip.config import Config
from unclip.errors import CheckpointError, ImageError
from unclip.manipulation.commands import COMMANDS, Command
from unclip.manipulation.inputs import Item, find_inputs
from unclip.manipulation.made import Made
from unclip.manipulation.options import Sweep
from unclip.manipulation.sweeps import sweep
from unclip.options import DrawingBetween, GenerateOptions
from unclip.pipeline import Generated, UnCLIP
from unclip.types import Step

_ALL = {**COMMANDS, "sweep": Command(Sweep, sweep, DrawingBetween)}


def again(
    model: UnCLIP,
    recipe: dict[str, Any],
    *,
    name: str,
    folders: Sequence[Path] = (),
    inputs: Sequence[Path] = (),
) -> Generator[Step, None, Made | Generated]:
    """Make the picture that a recipe describes.

    All pictures of its run are drawn, in the same batches, since the last bits of one may depend
    on its neighbours in a batch.

    Args:
        model: the one that made it.
        recipe: what `images.read_recipe` found.
        name: of the picture, for errors.
        folders: where its inputs may lie under their own names.
        inputs: files that may be among its inputs, whatever their names.

    Raises:
        CheckpointError: another model made it.
        ImageError: an input is missing or is another file; or the recipe is damaged.
    """
    check_model(model, recipe, name)
    options = _parsed(GenerateOptions, recipe.get("options"), name)
    if recipe.get("command") == "generate":
        single = options.model_copy(update={"images": 1})
        drawn = yield from model.stream(str(recipe.get("prompt")), single)
        return drawn[0]
    command, place = _ALL.get(str(recipe.get("command"))), recipe.get("picture")
    records = recipe.get("items")
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise ImageError(f"{name}: its recipe is damaged: what it was made from is missing")
    if command is None or not isinstance(place, int):
        raise ImageError(f"{name}: its recipe is none this version can follow")
    files = iter(find_inputs([r for r in records if "prompt" not in r], folders, inputs))
    items: list[Item] = [r["prompt"] if "prompt" in r else next(files) for r in records]
    how = _parsed(command.how, recipe.get("how"), name)
    try:
        signature(command.make).bind(model, *items, how=how, options=options)
    except TypeError as error:
        raise ImageError(
            f"{name}: its recipe is damaged: {recipe['command']} of {len(items)} items: {error}"
        ) from None
    made = yield from command.make(model, *items, how=how, options=options)
    if not 0 <= place < len(made):
        raise ImageError(f"{name}: its recipe asks for picture {place} of {len(made)}")
    return made[place]


def check_model(model: UnCLIP, recipe: dict[str, Any], name: str) -> None:
    """Refuse a recipe that another model wrote.

    Raises:
        CheckpointError: the fingerprints differ.
    """
    if recipe.get("fingerprint") != model.fingerprint:
        raise CheckpointError(
            f"{name} was drawn by model {recipe.get('model')} ({recipe.get('fingerprint')}), "
            f"{model.name} is another ({model.fingerprint}); name the right one with --model"
        )


def _parsed(config: type[Config], values: Any, name: str) -> Any:
    if not isinstance(values, dict):
        raise ImageError(f"{name}: its recipe is damaged: options are missing")
    return config.parse(values, source=f"the recipe in {name}")
