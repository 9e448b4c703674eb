"""``unclip import``: other people's checkpoints become folders of ours."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unclip.cli.progress import watch


def import_weights(
    source: str,
    dest: Path,
    /,
    *,
    reference: Literal["authors", "diffusers"] = "authors",
    revision: str | None = None,
    offline: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Convert a published checkpoint once, into a model folder of safetensors.

    `generate` and `info` also take the source itself, and then convert it into the user's cache.

    For example:

        unclip import openai/clip-vit-large-patch14 clip
        unclip import ViT-L-14.pt clip
        unclip import kakaobrain/karlo-v1-alpha karlo
        unclip import kakaobrain/karlo-v1-alpha+ECLIPSE-Community/ECLIPSE_Karlo_Prior eclipse

    Args:
        source: A file, a folder, or owner/name on the Hugging Face Hub; several make one model,
            joined by `+`: the parts of the later ones replace those of the earlier. Among several
            may be model and stage folders of this program.
        dest: The folder to write. Nothing is overwritten.
        reference: Whose behaviour to follow where the authors' code and its diffusers port differ.
        revision: Branch, tag or commit on the Hub.
        offline: Use what the Hub's cache holds and no network.
    """
    from unclip.cli.info import describe
    from unclip.loading import in_full
    from unclip.weights.convert import importing

    source = in_full(source)
    watch(importing(source, dest, reference=reference, revision=revision, offline=offline))
    card = describe(str(dest))["card"]
    print(f"{dest}  {card['family']}  licence: {card['licence']}")
