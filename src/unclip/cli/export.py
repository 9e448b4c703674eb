"""``unclip export``: a model for other programs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from unclip.cli.progress import found


def export(
    dest: Path,
    /,
    *,
    to: Literal["diffusers"] = "diffusers",
    model: Annotated[str, Parameter(alias="-m")] = "emoji",
) -> None:
    """Write CLIP, prior and decoder of a model for diffusers and transformers.

    What their architectures cannot hold is left out and named.

    For example:

        unclip export tuned-for-diffusers -m tuned

    Args:
        dest: The folder to write. Nothing is overwritten.
        to: Whose layout to write.
        model: A shipped model's name, a model or stage folder, or a published checkpoint.
    """
    from unclip.weights.export import export_model

    del to  # there is one layout so far
    written, left = export_model(found(model), dest)
    for name in written:
        print(dest / name)
    for one in left:
        print(f"left out: {one.what}: {one.why}")
