"""The diffusion prior (§1.4): samples CLIP image embeddings z_i given a caption.

Binds network, diffusion and conditioning. It knows no images: z_i comes from, and z_t is
compared in, whatever CLIP made the batch.
"""

from collections.abc import Iterable
from functools import cache
from typing import ClassVar, Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from unclip.config import Config
from unclip.diffusion.analytic import interpolate_posterior_mse, measure_posterior_mse
from unclip.diffusion.guidance import guided
from unclip.diffusion.losses import diffusion_loss
from unclip.diffusion.process import DiffusionConfig, Network, Process
from unclip.diffusion.sampling import SamplingOptions, sample
from unclip.diffusion.spacing import strided
from unclip.errors import CheckpointError, DataError, OptionError
from unclip.identity import ClipIdentity
from unclip.nn.measured import Measured
from unclip.prior.network import PriorNetwork, PriorNetworkConfig
from unclip.prior.space import EmbeddingSpace, Scaling
from unclip.randomness import Randomness
from unclip.types import Batch, Losses, Sampling, TextFeatures

SAMPLING = SamplingOptions(sampler="ancestral", steps=64, spacing="strided", clip="none")
"""The paper's: 64 strided steps. x̂0 is not clipped, for embeddings have no bounds."""


class DiffusionPriorConfig(Config):
    """The diffusion prior; the defaults are the paper's."""

    kind: Literal["diffusion"] = "diffusion"
    network: PriorNetworkConfig = PriorNetworkConfig()
    diffusion: DiffusionConfig = DiffusionConfig(target="x0", variance="analytic")
    scaling: Scaling = "constant"
    text_drop: float = Field(default=0.1, ge=0, le=1)
    """How often training hides the text: token states and z_t together."""
    draws: int = Field(default=1, ge=1)
    """Noised embeddings that training makes of each image; a causal network reads the caption
    once for all of them."""
    renormalise: bool = True
    """Whether samples are brought to unit length."""
    clip: ClipIdentity | None = None
    """The CLIP it was trained on; None in checkpoints older than this record."""


class DiffusionPrior(nn.Module):
    """Text features -> image embedding, by diffusion in the prior's `EmbeddingSpace`."""

    name: ClassVar[str] = "prior"
    needs: ClassVar[frozenset[str]] = frozenset({"text", "image_embedding"})
    candidates: ClassVar[int] = 2
    """Sampled where a caller does not say (§1.4)."""

    def __init__(self, config: DiffusionPriorConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PriorNetwork(config.network)
        self.space = EmbeddingSpace(config.scaling, config.network.embedding)
        self.posterior = Measured({"mse": (config.diffusion.steps,)})
        self.process = Process(config.diffusion)

    def forward(self, batch: Batch, randomness: Randomness) -> Losses:
        """Mean squared error of the predicted clean embedding, text hidden ``text_drop`` often."""
        assert batch.text is not None
        assert batch.image_embedding is not None
        text = batch.text
        self._check_measured(unconditional=self.config.text_drop > 0)
        dropped = randomness.uniform().to(text.embedding.device) < self.config.text_drop
        network, draws = self._bound(text, dropped), self.config.draws
        x0 = repeat(self.space.encode(batch.image_embedding), "b d -> (k b) d", k=draws)
        streams = [randomness, *(randomness.split(f"draw {k}") for k in range(1, draws))]
        return diffusion_loss(
            self.process,
            lambda x_t, t: network(x_t, t).float(),
            x0,
            randomness if draws == 1 else Randomness.joined(streams),
        )

    def sample(
        self,
        text: TextFeatures,
        options: SamplingOptions,
        randomness: Randomness,
        candidates: int = 2,
    ) -> Sampling:
        """Sample an image embedding for each caption, the best of ``candidates`` by z_i·z_t.

        All candidates are sampled in one batch, each from ``randomness.split("candidate k")``, so
        more candidates never change the earlier ones. Guidance mixes predictions of x0.

        Yields:
            Steps of all candidates, ``candidates·b`` rows, in the prior's own space.

        Returns:
            Image embeddings [b d] in float32, of unit length if the config says so.

        Raises:
            OptionError: fewer than one candidate.
            CheckpointError: the sampler needs something that was never measured or stored.
        """
        if candidates < 1:
            raise OptionError(f"candidates must be 1 or more, not {candidates}")
        if options.start < 1 or options.skip:
            raise OptionError("the prior begins at pure noise: leave start at 1 and skip at 0")
        variance = options.variance or self.process.config.variance
        analytic = options.sampler == "ancestral" and variance == "analytic"
        self._check_measured(unconditional=options.guidance != 1, posterior=analytic)
        device = self.network.out.weight.device
        text = text.to(device)
        everyone = text.take(torch.arange(len(text)).repeat(candidates))
        streams = Randomness.joined([randomness.split(f"candidate {k}") for k in range(candidates)])
        x0 = yield from sample(
            self.process,
            self._denoiser(everyone, options.guidance, options.guidance_interval),
            streams.normal(self.config.network.embedding).to(device),
            options,
            streams,
            stage=self.name,
            posterior_mse=self.posterior.get_buffer("mse") if analytic else None,
            clip="none",
        )
        embedding = self.space.decode(x0)
        if self.config.renormalise:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return nearest_text(
            rearrange(embedding, "(k b) d -> k b d", k=candidates), text.embedding.float()
        )

    def measure_posterior(self, batches: Iterable[Batch], seed: int = 0) -> None:
        """Measure M_t of Analytic-DPM (§4.4) and keep it with the weights.

        It is measured without guidance at the paper's 64 timesteps and interpolated between
        them, so that any number of steps can be sampled. Do it once the weights are final.

        Args:
            batches: held-out data, a few thousand samples.
            seed: of the noise.

        Raises:
            DataError: there is no batch.
        """
        self._check_measured(unconditional=False)
        schedule = self.process.schedule
        grid = schedule.respace(strided(len(schedule), min(SAMPLING.steps, len(schedule))))
        errors, samples = torch.zeros(len(grid), dtype=torch.float64), 0
        training = self.training
        self.eval()
        for k, batch in enumerate(batches):
            batch = batch.to(self.network.out.weight.device)
            assert batch.text is not None
            assert batch.image_embedding is not None
            errors += len(batch) * measure_posterior_mse(
                self.process,
                self._denoiser(batch.text, guidance=1.0),
                self.space.encode(batch.image_embedding),
                grid.timesteps.tolist(),
                Randomness.for_step(seed, k, 0, len(batch)),
            )
            samples += len(batch)
        self.train(training)
        if samples == 0:
            raise DataError("no held-out batch to measure the prior's analytic variance on")
        mse = interpolate_posterior_mse(errors / samples, grid, schedule)
        self.posterior.get_buffer("mse").copy_(mse)

    def _denoiser(
        self,
        text: TextFeatures,
        guidance: float,
        interval: tuple[float, float] | None = None,
    ) -> Network:
        """The network with its text bound, guided: what a sampler calls."""
        present = torch.zeros(len(text), dtype=torch.bool, device=text.embedding.device)
        conditional = torch.no_grad()(self._bound(text, present))
        if guidance == 1.0:
            return conditional
        twice = text.take(torch.arange(len(text)).repeat(2))
        joint = torch.no_grad()(self._bound(twice, torch.cat([present, ~present])))
        total = self.process.config.steps
        return guided(conditional, joint, guidance, interval, total=total)

    def _bound(self, text: TextFeatures, dropped: Bool[Tensor, " b"]) -> Network:
        """The network with its text bound, which is read when first needed and then kept.

        A network that is not causal has to read the text anew with every noised embedding.
        """
        network = self.network
        if network.config.causal:
            read = cache(lambda: network.read(text, dropped))
            return lambda x_t, t: network.after(read(), x_t, t)

        def whole(x_t: Tensor, t: Tensor) -> Tensor:
            if (draws := len(x_t) // len(text)) == 1:
                return network(x_t, t, text, dropped)
            again = torch.arange(len(text)).repeat(draws)
            return network(x_t, t, text.take(again), dropped.repeat(draws))

        return whole

    def _check_measured(self, unconditional: bool, posterior: bool = False) -> None:
        if not self.space.measured:
            raise CheckpointError(
                "the prior has no embedding statistics yet; call space.measure with the "
                "image embeddings of the training set"
            )
        if unconditional and not self.network.unconditional.measured:
            raise CheckpointError(
                "the prior has no encoding of the empty prompt; give it to "
                "network.unconditional.store, or build the prior with learned nulls"
            )
        if posterior and not self.posterior.measured:
            raise CheckpointError(
                "the prior's analytic variance was never measured; call measure_posterior with "
                "held-out batches, or sample with ddim, dpm++, unipc or the variance fixed_small"
            )


def nearest_text(
    candidates: Float[Tensor, "k b d"], text: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """For each caption, the candidate with the largest dot product with its text embedding."""
    best = (candidates * text).sum(-1).argmax(0)
    return candidates[best, torch.arange(len(text), device=text.device)]
