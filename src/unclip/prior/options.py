"""What may be asked of a prior, of whatever kind: kept apart from it, for help without torch."""

from pydantic import Field

from unclip.diffusion.options import SamplingOptions


class PriorSampling(SamplingOptions):
    """How to sample a prior.

    An autoregressive one reads ``guidance`` and the two fields below. It does not walk, so
    the others, which every kind accepts, have nothing to act on there.
    """

    dot_percentile: float = Field(default=0.5, ge=0, lt=1)
    """Ask an autoregressive prior for a z_i·z_t above this share of the training data's."""
    temperature: float = Field(default=1.0, gt=0)
    """Of an autoregressive prior's choices: below 1 they are more likely and less varied."""


def for_prior(options: SamplingOptions) -> PriorSampling:
    """The options as a prior's, what they do not say being unset."""
    if isinstance(options, PriorSampling):
        return options
    return PriorSampling(**options.model_dump(exclude_unset=True))
