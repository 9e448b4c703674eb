"""The autoregressive prior (§1.3): writes z_i as tokens, one after another, given a caption.

Binds network, codec and conditioning, with the contract of the diffusion prior: either can stand
in a model.
"""

from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from unclip.config import Config
from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.identity import ClipIdentity
from unclip.prior.autoregressive_network import (
    AutoregressiveNetwork,
    AutoregressiveNetworkConfig,
    Writing,
)
from unclip.prior.codec import Codec
from unclip.prior.diffusion_prior import nearest_text
from unclip.prior.options import for_prior
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling, Step, TextFeatures


class AutoregressivePriorConfig(Config):
    """The autoregressive prior; the defaults are the paper's."""

    kind: Literal["autoregressive"] = "autoregressive"
    network: AutoregressiveNetworkConfig = AutoregressiveNetworkConfig()
    text_drop: float = Field(default=0.1, ge=0, le=1)
    """How often training hides the text: caption and z_t together."""
    clip: ClipIdentity | None = None
    """The CLIP it was trained on."""


class AutoregressivePrior(nn.Module):
    """Text features -> image embedding, through the tokens of a `Codec`.

    The codec has to be fitted (``codec.fit``) before the network is trained.
    """

    name: ClassVar[str] = "prior"
    needs: ClassVar[frozenset[str]] = frozenset({"text", "image_embedding"})
    candidates: ClassVar[int] = 1
    """Sampled where a caller does not say; the paper chooses by the dot token instead."""

    def __init__(self, config: AutoregressivePriorConfig) -> None:
        super().__init__()
        self.config = config
        network = config.network
        self.network = AutoregressiveNetwork(network)
        self.codec = Codec(network.embedding, network.components, network.buckets)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Cross-entropy of the tokens in nats, text hidden ``text_drop`` often.

        Returns:
            ``loss``, the mean over all tokens; ``codes`` over those of z_i, and ``dot``.
        """
        assert batch.text is not None
        assert batch.image_embedding is not None
        self._check_fitted()
        text = batch.text
        dropped = randomness.uniform().to(text.embedding.device) < self.config.text_drop
        dot = self.codec.encode_dot(batch.image_embedding, text.embedding)
        tokens = torch.cat([dot[:, None], self.codec.encode(batch.image_embedding)], dim=1)
        logits = self.network(tokens[:, :-1], text, dropped).float()
        losses = cross_entropy(logits.transpose(1, 2), tokens, reduction="none").mean(0)
        parts = {"codes": losses[1:].mean().detach(), "dot": losses[0].detach()}
        return {"loss": losses.mean(), **parts}

    def sample(
        self,
        text: TextFeatures,
        options: SamplingOptions,
        randomness: Randomness,
        candidates: int = 1,
    ) -> Sampling:
        """Sample an image embedding for each caption.

        The token of z_i·z_t is drawn from the training distribution's part above
        ``options.dot_percentile``, then those of z_i from the network, whose logits are guided.
        Of several candidates, each from its own streams, the nearest to the text is taken.

        Yields:
            One step a token of z_i: the embeddings so far, ``candidates·b`` rows, coordinates
            not yet drawn being zero.

        Returns:
            Image embeddings [b d] in float32, of unit length.

        Raises:
            OptionError: fewer than one candidate.
            CheckpointError: the codec was never fitted.
        """
        if candidates < 1:
            raise OptionError(f"candidates must be 1 or more, not {candidates}")
        self._check_fitted()
        options, codec = for_prior(options), self.codec
        device = self.network.out.weight.device
        text = text.to(device)
        everyone = text.take(torch.arange(len(text)).repeat(candidates))
        streams = Randomness.joined([randomness.split(f"candidate {k}") for k in range(candidates)])
        total = len(codec.components)
        draws = streams.uniform(total + 1).to(device)
        writing = self._start(everyone, options.guidance)
        token = _above(options.dot_percentile, codec.buckets, draws[:, 0])
        z_i = codec.mean.expand(len(everyone), -1)
        for place in range(total):
            logits = _next(writing, token, options.guidance) / options.temperature
            token = draw(logits, draws[:, 1 + place])
            z_i = z_i + codec.values[place, token][:, None] * codec.components[place]
            yield Step(self.name, place, total, z_i, z_i)
        z_i = rearrange(normalize(z_i, dim=-1), "(k b) d -> k b d", k=candidates)
        return nearest_text(z_i, text.embedding.float())

    @torch.no_grad()
    def _start(self, text: TextFeatures, guidance: float) -> Writing:
        """Read the captions, where guided once more without the text."""
        present = torch.zeros(len(text), dtype=torch.bool, device=text.embedding.device)
        if guidance == 1:
            return Writing(self.network, self.network.condition(text, present))
        twice = text.take(torch.arange(len(text)).repeat(2))
        condition = self.network.condition(twice, torch.cat([present, ~present]))
        return Writing(self.network, condition)

    def _check_fitted(self) -> None:
        if not self.codec.measured:
            raise CheckpointError(
                "the autoregressive prior has no codec yet; call codec.fit with training batches, "
                "as `unclip train prior` does"
            )


def _next(
    writing: Writing, token: Int[Tensor, " b"], guidance: float
) -> Float[Tensor, "b buckets"]:
    """Logits of the next token: unconditional + guidance (conditional − unconditional)."""
    if guidance == 1:
        return writing.after(token)
    conditional, unconditional = writing.after(token.repeat(2)).chunk(2)
    return unconditional + guidance * (conditional - unconditional)


def _above(percentile: float, buckets: int, uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Uniform buckets above ``percentile``: being quantiles, each is as likely in training."""
    lowest = min(round(percentile * buckets), buckets - 1)
    return (lowest + (uniform * (buckets - lowest)).long()).clamp(max=buckets - 1)


def draw(logits: Float[Tensor, "b buckets"], uniform: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """The token at which the distribution function of softmax(logits) passes ``uniform``."""
    passed = logits.softmax(dim=-1).cumsum(dim=-1)
    # The last value is 1 but for rounding, which must not lead past the last token.
    target = rearrange(uniform, "b -> b 1") * passed[:, -1:]
    return torch.searchsorted(passed, target, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
