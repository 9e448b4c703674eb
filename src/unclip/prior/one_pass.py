"""The prior of one pass: from caption and noise straight to z_i, as in ECLIPSE (2312.04655).

The network of the diffusion prior without a timestep, trained to predict z_i itself. It has the
contract of the other priors: any can stand in a model.
"""

from typing import ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from unclip.config import Config
from unclip.diffusion.options import SamplingOptions
from unclip.errors import CheckpointError, OptionError
from unclip.identity import ClipIdentity
from unclip.nn.transformer import TransformerConfig
from unclip.prior.diffusion_prior import nearest_text
from unclip.prior.network import PriorNetwork, PriorNetworkConfig
from unclip.prior.space import EmbeddingSpace, Scaling
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling, Step, TextFeatures


class OnePassPriorConfig(Config):
    """A prior of one pass; the size is ECLIPSE's, 33 M parameters on CLIP ViT-L/14."""

    kind: Literal["one_pass"] = "one_pass"
    network: PriorNetworkConfig = PriorNetworkConfig(
        transformer=TransformerConfig(width=512, depth=10, heads=16),
        timestep=False,
        unconditional="none",
    )
    scaling: Scaling = "constant"
    renormalise: bool = True
    """Whether samples are brought to unit length; ECLIPSE's are not."""
    contrastive: float = Field(default=0.2, ge=0)
    """Weight of telling which caption a prediction belongs to, beside the squared error."""
    temperature: float = Field(default=0.07, gt=0)
    """Of that contrast: cosines are divided by it."""
    clip: ClipIdentity | None = None
    """The CLIP it was trained on."""

    @model_validator(mode="after")
    def _check(self) -> "OnePassPriorConfig":
        if self.network.timestep or self.network.unconditional != "none":
            raise ValueError(
                "one pass knows neither a timestep nor a pass without text; set network.timestep "
                "to false and network.unconditional to none"
            )
        return self


class OnePassPrior(nn.Module):
    """Text features and noise -> image embedding, in one evaluation of the network."""

    name: ClassVar[str] = "prior"
    needs: ClassVar[frozenset[str]] = frozenset({"text", "image_embedding"})
    candidates: ClassVar[int] = 1
    """Sampled where a caller does not say."""

    def __init__(self, config: OnePassPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PriorNetwork(config.network)
        self.space = EmbeddingSpace(config.scaling, config.network.embedding)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """ECLIPSE's loss: squared error in the prior's space, and a contrast with the captions.

        Returns:
            ``loss``, and its unweighted parts ``mse`` and ``contrast``, the latter in nats.
        """
        assert batch.text is not None
        assert batch.image_embedding is not None
        self._check_measured()
        noise = randomness.normal(self.config.network.embedding)
        predicted = self._predict(batch.text, noise)
        mse = (predicted - self.space.encode(batch.image_embedding)).square().mean()
        z_i, z_t = self.space.decode(predicted), batch.text.embedding.to(predicted)
        logits = normalize(z_i, dim=-1) @ normalize(z_t, dim=-1).T / self.config.temperature
        contrast = cross_entropy(logits, torch.arange(len(logits), device=logits.device))
        loss = mse + self.config.contrastive * contrast
        return {"loss": loss, "mse": mse.detach(), "contrast": contrast.detach()}

    def sample(
        self,
        text: TextFeatures,
        options: SamplingOptions,
        randomness: Randomness,
        candidates: int = 1,
    ) -> Sampling:
        """Predict an image embedding for each caption, the best of ``candidates`` by z_i·z_t.

        Of the options none applies: there is nothing to walk. Candidates differ by their noise,
        each from its own streams.

        Yields:
            One step with all candidates, ``candidates·b`` rows.

        Returns:
            Image embeddings [b d] in float32 (float64 if the network is), of unit length if the
            config says so.

        Raises:
            OptionError: fewer than one candidate, or guidance, which one pass does not have.
            CheckpointError: the embedding statistics were never measured.
        """
        if candidates < 1:
            raise OptionError(f"candidates must be 1 or more, not {candidates}")
        if options.guidance != 1:
            raise OptionError(
                f"this prior takes one pass and cannot be guided: leave its guidance at 1 instead "
                f"of {options.guidance}"
            )
        self._check_measured()
        text = text.to(self.network.out.weight.device)
        everyone = text.take(torch.arange(len(text)).repeat(candidates))
        streams = Randomness.joined([randomness.split(f"candidate {k}") for k in range(candidates)])
        with torch.no_grad():
            noise = streams.normal(self.config.network.embedding)
            z_i = self.space.decode(self._predict(everyone, noise))
            if self.config.renormalise:
                z_i = normalize(z_i, dim=-1)
        yield Step(self.name, 0, 1, z_i, z_i)
        return nearest_text(
            rearrange(z_i, "(k b) d -> k b d", k=candidates), text.embedding.to(z_i)
        )

    def _predict(self, text: TextFeatures, noise: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        weight = self.network.out.weight
        present = torch.zeros(len(text), dtype=torch.bool, device=weight.device)
        predicted = self.network(noise.to(weight.device), None, text, present)
        return predicted.to(torch.promote_types(predicted.dtype, torch.float32))

    def _check_measured(self) -> None:
        if not self.space.measured:
            raise CheckpointError(
                "the prior has no embedding statistics yet; call space.measure with the image "
                "embeddings of the training set"
            )
