"""``unclip info``: what a model is made of."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from unclip.cli.progress import found


def info(
    model: str = "emoji",
    /,
    *,
    json_output: Annotated[bool, Parameter(name="--json", show_default=False)] = False,
) -> None:
    """Show a model: its card, stages, sizes and sampling defaults.

    For example:

        unclip info
        unclip info kakaobrain/karlo-v1-alpha --json

    Args:
        model: A shipped model's name, a model or stage folder, or a published checkpoint.
        json_output: Print everything, with all configs, as JSON.
    """
    facts = describe(model)
    if json_output:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _show(facts)


def describe(model: str) -> dict[str, Any]:
    """Facts about a model, as plain values."""
    from unclip.checkpoint import fingerprint, is_stage, read_card, read_config, read_index

    folder = found(model)
    if is_stage(folder):
        name, _ = read_config(folder)
        return {
            "folder": str(folder),
            "card": read_card(folder).model_dump(),
            "stages": {name: _stage(folder)},
        }
    index = read_index(folder)
    stages = {name: _stage(folder / name) for name in index.folders()}
    sizes = [stages[index.decoder]["config"]["size"]] if index.decoder else []
    if index.codec and index.decoder:
        levels = stages[index.codec]["config"]["network"]["widths"]
        sizes = [sizes[0] * 2 ** (len(levels) - 1)]
    return {
        "folder": str(folder),
        "fingerprint": fingerprint(folder, index),
        "card": index.card.model_dump(),
        "sizes": [*sizes, *index.upsamplers] if index.decoder else [],
        "stages": stages,
        "defaults": index.defaults.model_dump(mode="json"),
    }


def _stage(folder: Path) -> dict[str, Any]:
    from unclip.checkpoint import WEIGHTS, count_parameters, read_config

    config = read_config(folder)[1].model_dump(mode="json")
    facts = {
        "parameters": count_parameters(folder),
        "bytes": (folder / WEIGHTS).stat().st_size,
        "config": config,
    }
    return facts | (_tokens(folder) if config.get("kind") == "autoregressive" else {})


def _tokens(folder: Path) -> dict[str, Any]:
    """What the tokens of an autoregressive prior hold of its image embeddings."""
    from safetensors import safe_open

    from unclip.checkpoint import WEIGHTS
    from unclip.prior.pca import lost

    with safe_open(folder / WEIGHTS, "pt") as file:
        spectrum = file.get_tensor("codec.spectrum")
        tokens, buckets = file.get_slice("codec.values").get_shape()
    held = {"tokens": tokens, "buckets": buckets, "variance": 1 - lost(spectrum, tokens)}
    return {"codec": held}


def _show(facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    card = facts["card"]
    console.print(card["name"], style="bold")
    rows = {
        "about": card["description"],
        "licence": card["licence"],
        "source": card["source"],
        "revision": card["revision"],
        "family": card["family"],
        "reference": card["reference"],
        "draws": ", ".join(f"{size} px" for size in facts.get("sizes", ())),
        "fingerprint": facts.get("fingerprint", ""),
    }
    for label, text in rows.items():
        if text:
            console.print(f"{label:<11}  {text}")
    table = Table("stage", "parameters", "on disk", "sampling", box=None, pad_edge=False)
    defaults = facts.get("defaults", {})
    for name, stage in facts["stages"].items():
        group = name.split("-")[0]
        sampling = defaults.get(group) or {}
        if group == "upsampler":
            sampling = sampling.get(name.split("-")[1], {})
        how = ""
        if sampling:
            how = f"{sampling['sampler']}, {sampling['steps']} steps"
            if codec := stage.get("codec"):
                held = f"{100 * codec['variance']:.1f} % of the variance"
                how = f"{codec['tokens']} tokens of {codec['buckets']} values, {held}"
            if sampling["guidance"] != 1:
                how += f", guidance {sampling['guidance']}"
        millions, megabytes = stage["parameters"] / 1e6, stage["bytes"] / 1e6
        table.add_row(name, f"{millions:.2f} M", f"{megabytes:.1f} MB", how)
    console.print(table)
