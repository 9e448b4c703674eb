"""The paper's Figure 2: a prompt becomes a text embedding, an image embedding, an image.

P(x|y) = P(x|z_i, y) · P(z_i|y) (§2). Stages come as slots, loaded when first needed.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import unclip
from unclip.clip.clip import Clip
from unclip.codec.codec import Codec
from unclip.decoder.decoder import Decoder
from unclip.diffusion.samplers.repaint import Known
from unclip.errors import CheckpointError, OptionError, PromptError
from unclip.images import save_png, to_pil
from unclip.options import GenerateOptions, with_upsampling
from unclip.prior.kinds import Prior
from unclip.randomness import Randomness
from unclip.runtime import Runtime, choose_runtime
from unclip.storage.slot import Slot as Slot
from unclip.types import Sampling, Step, TextFeatures, finish
from unclip.upsampler.upsampler import Upsampler

ROUND = 32
"""Images drawn with one loading of each stage, where stages are not kept; at 1024 px such an image
takes 12 MiB until it is a picture."""


class Job(NamedTuple):
    """One image to be drawn."""

    prompt_at: int
    prompt: str
    seed: int


@dataclass(frozen=True)
class Generated:
    """One image and how it came about."""

    image: Image.Image
    prompt: str
    seed: int
    score: float | None
    """Cosine between the image's CLIP embedding and the prompt's: higher fits better. None where
    the model's CLIP has no image tower."""
    recipe: dict[str, Any]
    """All that is needed to make the image again; `save` writes it into the PNG."""

    def save(self, path: Path | str) -> Path:
        """Write a PNG with the recipe inside. Never overwrites.

        Raises:
            ImageError: the file exists, or cannot be written.
        """
        save_png(self.image, path, self.recipe)
        return Path(path)


@dataclass(frozen=True)
class Latents:
    """What a decoder draws in place of pixels, and what makes pixels of them."""

    codec: Slot[Codec]
    factor: int
    """Pixels a side of one latent."""
    multiple: int
    """Sides of the images that can be drawn are multiples of this."""


class UnCLIP:
    """Text to image through CLIP image embeddings.

    Args:
        clip: encodes prompts, and scores the images.
        prior: draws image embeddings for a text; None in a model that only varies images.
        decoder: draws small images for image embeddings.
        upsamplers: enlarge them, by the size each draws.
        size: of the decoder's images, in pixels a side.
        defaults: options where a caller sets none.
        name: what a recipe calls this model.
        fingerprint: identifies the weights in a recipe, or finds that out when it is needed.
        runtime: what the stages were placed for; recipes tell it.
        latents: where the decoder draws no pixels; such a model draws other sizes too.
    """

    def __init__(
        self,
        clip: Slot[Clip],
        prior: Slot[Prior] | None,
        decoder: Slot[Decoder],
        upsamplers: Mapping[int, Slot[Upsampler]],
        *,
        size: int,
        defaults: GenerateOptions | None = None,
        name: str = "unnamed",
        fingerprint: str | Callable[[], str] = "",
        runtime: Runtime | None = None,
        latents: Latents | None = None,
    ) -> None:
        self.clip, self.prior, self.decoder = clip, prior, decoder
        self.upsamplers = dict(sorted(upsamplers.items()))
        self.sizes = (size, *self.upsamplers)
        self.defaults = with_upsampling(defaults or GenerateOptions(), self.upsamplers)
        self.name, self._fingerprint = name, fingerprint
        self.runtime = runtime or choose_runtime()
        self.latents = latents

    @property
    def fingerprint(self) -> str:
        """Identifies the weights."""
        if callable(self._fingerprint):
            self._fingerprint = self._fingerprint()
        return self._fingerprint

    def generate(
        self, prompts: str | Sequence[str], options: GenerateOptions | None = None
    ) -> list[Generated]:
        """Draw images for prompts; for each prompt in turn, best CLIP score first.

        Raises:
            PromptError: a prompt is empty, or none is given.
            OptionError: a size this model does not draw.
            CheckpointError: the model has no prior, or one of its stages is damaged.
        """
        return finish(self.stream(prompts, options))

    def stream(
        self, prompts: str | Sequence[str], options: GenerateOptions | None = None
    ) -> Generator[Step, None, list[Generated]]:
        """`generate`, yielding each sampling step on the way. Closing the generator cancels."""
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        check_prompts(prompts)
        self._prior()
        options = self.complete(options or GenerateOptions())
        jobs = [
            Job(position, prompt, options.seed + i)
            for position, prompt in enumerate(prompts)
            for i in range(options.images)
        ]
        drawn: list[Generated] = []
        at_once = options.batch if self.decoder.keep else max(ROUND, options.batch)
        for some in _chunks(jobs, at_once):
            drawn += yield from self._draw(_chunks(some, options.batch), options)
        ranked = zip(jobs, drawn, strict=True)
        order = sorted(ranked, key=lambda item: (item[0].prompt_at, -(item[1].score or 0.0)))
        return [generated for _, generated in order]

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Prompts to what prior and decoder are conditioned on."""
        with self.clip.use() as clip:
            return clip.encode_text(prompts)

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Images in [-1, 1], of any size, to image embeddings z_i."""
        with self.clip.use() as clip:
            return clip.encode_image(images)

    def embed(
        self, text: TextFeatures, options: GenerateOptions, randomness: Randomness
    ) -> Sampling:
        """Draw z_i [b d] for each text (P(z_i|y)). Options must be complete, see `complete`.

        Raises:
            CheckpointError: the model has no prior.
        """
        streams = randomness.split("prior")
        return self._prior().sample(
            lambda prior: prior.sample(
                text, options.prior, streams, options.candidates or prior.candidates
            )
        )

    def decode(
        self,
        image_embedding: Float[Tensor, "b d"],
        text: TextFeatures | None,
        options: GenerateOptions,
        randomness: Randomness,
        *,
        x_T: Float[Tensor, "b c h w"] | None = None,
        known: Mapping[int, Known] | None = None,
    ) -> Sampling:
        """Draw images [b 3 h w] in [-1, 1] for image embeddings (P(x|z_i, y)).

        The decoder starts from ``x_T``, or from noise of its own. ``known`` parts of the
        pictures, by their size, are kept. Options must be complete, see `complete`.

        Raises:
            OptionError: ``known`` for a model that draws latents, or options that are not complete.
        """
        if known and self.latents is not None:
            raise OptionError(f"{self.name} draws latents, and cannot keep parts of a picture")
        self.refiners(options)  # finds what cannot be done before anything is drawn
        images = yield from self._paint(
            image_embedding, text, options, randomness, x_T, (known or {}).get(self.sizes[0])
        )
        if self.latents is not None:
            images = yield from self.latents.codec.sample(partial(Codec.sample, latents=images))
        return (yield from self.upsample(images, options, randomness, known))

    def upsample(
        self,
        images: Float[Tensor, "b 3 h w"],
        options: GenerateOptions,
        randomness: Randomness,
        known: Mapping[int, Known] | None = None,
        *,
        start: int = 0,
    ) -> Sampling:
        """Enlarge the decoder's images to the size asked for; ``known`` parts are kept.

        Images of other sizes than the decoder's need not pass through the upsamplers that draw
        ``start`` pixels or less. Options must be complete, see `complete`.
        """
        for size, slot in self.refiners(options):
            if size <= start:
                continue
            images = yield from slot.sample(
                partial(
                    Upsampler.sample,
                    images=images,
                    options=options.upsampler[str(size)],
                    randomness=randomness.split(f"upsampler {size}"),
                    tile=options.tile,
                    known=(known or {}).get(size),
                )
            )
        return images

    def _paint(
        self,
        image_embedding: Tensor,
        text: TextFeatures | None,
        options: GenerateOptions,
        randomness: Randomness,
        x_T: Tensor | None = None,
        known: Known | None = None,
    ) -> Sampling:
        """What the decoder draws: images or latents."""
        streams = randomness.split("decoder")
        return self.decoder.sample(
            lambda decoder: decoder.sample(
                image_embedding,
                text,
                options.decoder,
                streams,
                x_T=x_T,
                known=known,
                size=self._grid(options),
            )
        )

    def _draw(
        self, batches: Sequence[Sequence[Job]], options: GenerateOptions
    ) -> Generator[Step, None, list[Generated]]:
        """Draw batches, each stage all of them before the next stage begins."""
        streams = [Randomness([job.seed for job in batch]) for batch in batches]
        with self.clip.use():
            texts = [self.encode_text([job.prompt for job in batch]) for batch in batches]
        embedded = yield from self._prior().sample_all(
            self.embed(text, options, stream) for text, stream in zip(texts, streams, strict=True)
        )
        images = yield from self.decoder.sample_all(
            self._paint(embedding, text, options, stream)
            for embedding, text, stream in zip(embedded, texts, streams, strict=True)
        )
        if (latents := self.latents) is not None:
            images = yield from latents.codec.sample_all(
                latents.codec.sample(partial(Codec.sample, latents=image)) for image in images
            )
        for size, slot in self.refiners(options):
            step = options.updated({"size": size, "width": None})
            images = yield from slot.sample_all(
                self.upsample(small, step, stream, start=size - 1)
                for small, stream in zip(images, streams, strict=True)
            )
        drawn = []
        with self.clip.use():
            for batch, text, large in zip(batches, texts, images, strict=True):
                computed = self.computed(len(batch))
                scores = self._scores(large, text)
                for job, image, score in zip(batch, large, scores, strict=True):
                    recipe = self._recipe(job.prompt, job.seed, options, computed)
                    picture = to_pil(image)
                    drawn.append(Generated(picture, job.prompt, job.seed, score, recipe))
        return drawn

    def _scores(self, images: Tensor, text: TextFeatures) -> list[float | None]:
        with self.clip.use() as clip:
            if clip.config.image is None:
                return [None] * len(images)
            return torch.cosine_similarity(clip.encode_image(images), text.embedding).tolist()

    def _prior(self) -> Slot[Prior]:
        if self.prior is None:
            raise CheckpointError(
                f"{self.name} has no prior and draws no prompts: vary an image with it, or load "
                "it with the prior of another model"
            )
        return self.prior

    def complete(self, options: GenerateOptions) -> GenerateOptions:
        """Fill unset options in, and find what this model cannot do before anything is drawn."""
        known = {str(size) for size in self.upsamplers} | set(self.defaults.upsampler)
        if unknown := sorted(set(options.upsampler) - known):
            raise OptionError(
                f"upsampler.{unknown[0]}: this model has upsamplers to "
                f"{', '.join(str(size) for size in self.upsamplers) or 'no size'}"
            )
        options = options.over(self.defaults)
        self.refiners(options)
        return options

    def refiners(self, options: GenerateOptions) -> list[tuple[int, Slot[Upsampler]]]:
        """The upsamplers that lead to the size asked for, by what each draws."""
        size = options.size or self.sizes[-1]
        self._check_size(size, options.width or size)
        refiners = [(step, slot) for step, slot in self.upsamplers.items() if step <= size]
        for step, _ in refiners:
            if str(step) not in options.upsampler:
                raise OptionError(
                    f"these options lack upsampler.{step}: give those that `complete` returns"
                )
        return refiners

    def _check_size(self, height: int, width: int) -> None:
        if self.latents is not None and not self.upsamplers:
            multiple = self.latents.multiple
            if height % multiple or width % multiple:
                raise OptionError(
                    f"{width}×{height} cannot be drawn by this model; sides must be multiples of "
                    f"{multiple}"
                )
        elif height not in self.sizes:
            known = ", ".join(str(known) for known in self.sizes)
            raise OptionError(f"size {height} cannot be drawn by this model; choose from {known}")
        elif width != height:
            raise OptionError("this model draws squares: leave width unset")

    def _grid(self, options: GenerateOptions) -> tuple[int, int] | None:
        """Height and width the decoder is to draw; None for its own."""
        if self.latents is None or self.upsamplers:
            return None
        height = options.size or self.sizes[0]
        factor = self.latents.factor
        return height // factor, (options.width or height) // factor

    def computed(self, batch: int) -> dict[str, Any]:
        """What decides the last bits of an image, besides its recipe: where it is computed."""
        return {
            "torch": torch.__version__,
            "device": self.runtime.device.type,
            "dtype": str(self.runtime.dtype).removeprefix("torch."),
            "batch": batch,
        }

    def _recipe(
        self, prompt: str, seed: int, options: GenerateOptions, computed: dict[str, Any]
    ) -> dict[str, Any]:
        asked = options.model_dump(mode="json", exclude={"images", "seed", "batch"})
        return {
            "software": f"unclip {unclip.__version__}",
            "command": "generate",
            "model": self.name,
            "fingerprint": self.fingerprint,
            "prompt": prompt,
            "options": {**asked, "seed": seed},
            "computed": computed,
        }


def check_prompts(prompts: Sequence[str]) -> None:
    """Refuse prompts that say nothing.

    Raises:
        PromptError: one is empty or no text, or there is none.
    """
    if not prompts:
        raise PromptError("no prompt given; say in words what to draw")
    for position, prompt in enumerate(prompts, start=1):
        if not prompt.strip():
            which = f"prompt {position} is empty" if len(prompts) > 1 else "the prompt is empty"
            raise PromptError(f"{which}; say in words what to draw")
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise PromptError(f"prompt {position} is not valid Unicode: {prompt!r}") from None


def _chunks(jobs: Sequence[Job], size: int) -> list[Sequence[Job]]:
    return [jobs[start : start + size] for start in range(0, len(jobs), size)]
