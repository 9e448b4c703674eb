"""Checkpoints that are recognised and not imported, each with advice."""

from typing import NoReturn

from unclip.errors import CheckpointError
from unclip.weights.family import Family, Reference
from unclip.weights.formats import strings_in_pickle
from unclip.weights.source import Source

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".th")


def _is_dalle2_pytorch(source: Source) -> bool:
    if "dalle2-pytorch" in source.origin.lower():
        return True
    # Its files hold code, so that only their strings can be looked at.
    pickles = [file for file in source.weights() if file.endswith(PICKLES)]
    return any(
        "causal_transformer." in text or text.startswith("unets.0.")
        for file in pickles
        for text in strings_in_pickle(source.path(file))
    )


def _refuse_dalle2_pytorch(source: Source, _: Reference) -> NoReturn:
    raise CheckpointError(
        f"{source.name} is a checkpoint of DALLE2-pytorch, whose networks are others than the "
        "paper's and changed between its versions; import Karlo, or train a prior and a decoder "
        "with `unclip train` on the same CLIP and data"
    )


FAMILIES = (Family("dalle2-pytorch", _is_dalle2_pytorch, _refuse_dalle2_pytorch),)
