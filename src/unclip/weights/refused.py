"""Checkpoints that are recognised and not imported, each with advice."""

from typing import NoReturn

from unclip.errors import CheckpointError
from unclip.weights.family import Family, Reference
from unclip.weights.formats import strings_in_pickle
from unclip.weights.source import Source

CONFIG = "config.json"
PRIOR = ("prd_embedding", "positional_embedding", "proj_to_clip_embeddings.weight")
"""Ends of names that only a PriorTransformer of diffusers has together."""
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


def _is_prior_alone(source: Source) -> bool:
    if source.has(CONFIG) or not source.weights():
        return False
    names = tuple(source.tensors())
    return all(any(name.endswith(mark) for name in names) for mark in PRIOR)


def _refuse_prior_alone(source: Source, _: Reference) -> NoReturn:
    timed = any("time_embedding." in name for name in source.tensors())
    what = "a PriorTransformer" if timed else "an ECLIPSE prior"
    raise CheckpointError(
        f"{source.name} holds the weights of {what} alone, which do not tell its heads: "
        f"import the folder that has its {CONFIG} beside diffusion_pytorch_model.safetensors, or "
        "the repository by name, such as ECLIPSE-Community/ECLIPSE_Karlo_Prior"
    )


FAMILIES = (Family("dalle2-pytorch", _is_dalle2_pytorch, _refuse_dalle2_pytorch),)
"""Asked before the families that can be imported."""
INCOMPLETE = (Family("prior-transformer", _is_prior_alone, _refuse_prior_alone),)
"""Asked after them: a part of what they need."""
