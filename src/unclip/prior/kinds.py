"""Every kind of prior there is: a model may hold any, for all sample z_i given a caption."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from unclip.errors import OptionError
from unclip.prior.autoregressive import AutoregressivePrior, AutoregressivePriorConfig
from unclip.prior.diffusion_prior import DiffusionPrior, DiffusionPriorConfig
from unclip.prior.one_pass import OnePassPrior, OnePassPriorConfig

Prior: TypeAlias = DiffusionPrior | AutoregressivePrior | OnePassPrior
PriorConfig: TypeAlias = DiffusionPriorConfig | AutoregressivePriorConfig | OnePassPriorConfig

KINDS: dict[str, tuple[type[Prior], type[PriorConfig]]] = {
    "diffusion": (DiffusionPrior, DiffusionPriorConfig),
    "autoregressive": (AutoregressivePrior, AutoregressivePriorConfig),
    "one_pass": (OnePassPrior, OnePassPriorConfig),
}
"""Class and config by the config's ``kind``."""


def build_prior(config: PriorConfig) -> Prior:
    """The prior a config describes, with random weights."""
    return KINDS[config.kind][0](config)  # type: ignore[arg-type]


def parse_prior(values: Mapping[str, Any], *, source: str) -> PriorConfig:
    """Build the config of whichever kind ``values`` name.

    Raises:
        OptionError: naming ``source``, the kind is unknown or a field invalid.
    """
    kind = values.get("kind", "diffusion")
    if kind not in KINDS:
        raise OptionError(f"{source}: a prior of kind {kind!r} is none of {', '.join(KINDS)}")
    return KINDS[kind][1].parse(values, source=source)
