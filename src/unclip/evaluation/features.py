"""From pictures to the features that distances are measured in: of a CLIP or of Inception (§6).

Pluggable: anything with a name that turns pictures in [-1, 1] into rows is a feature space.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from unclip.checkpoint import WEIGHTS, load_stage
from unclip.clip.clip import Clip
from unclip.errors import CheckpointError, OptionError
from unclip.identity import identify
from unclip.pipeline import UnCLIP
from unclip.runtime import choose_runtime

INCEPTION_SIZE = 299


@runtime_checkable
class Features(Protocol):
    """A feature space."""

    name: str
    """What a report calls it."""

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Features of images in [-1, 1] of any size, in float32 on the CPU."""
        ...


class ClipFeatures:
    """Image embeddings of an evaluator, times √d, so that components are of order one.

    Args:
        clip: any CLIP but the model's own, which the model was trained to please.
        name: what a report calls it.
    """

    def __init__(self, clip: Clip, name: str = "evaluator") -> None:
        self.clip, self.name = clip, name

    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Scaled unit-norm embeddings."""
        z = self.clip.encode_image(images)
        return z.cpu() * z.shape[1] ** 0.5


class InceptionFeatures:
    """Inception-v3's 2,048 pool features with the weights FID was defined on, by torch-fidelity.

    Pictures are resized to 299 with antialiased bicubic interpolation, as clean-fid does, and
    rounded to 8 bits.

    Args:
        weights: the file of torch-fidelity's weights.

    Raises:
        OptionError: torch-fidelity is not installed.
        CheckpointError: there is no such file, or it holds more than tensors.
    """

    name = "inception"

    def __init__(self, weights: Path) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise OptionError(
                "Inception features need torch-fidelity: pip install torch-fidelity; or name a "
                "CLIP with --evaluator"
            ) from None
        try:
            # The library unpickles whatever the file holds.
            torch.load(weights, map_location="meta", weights_only=True)
        except OSError:
            raise CheckpointError(f"{weights}: there is no such file of weights") from None
        except Exception as error:  # pickle raises nearly anything on damaged files
            raise CheckpointError(f"{weights}: is no file of weights: {error}") from None
        self._network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(weights)
        ).eval()

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k"]:
        """Features after the last pooling."""
        size = (INCEPTION_SIZE, INCEPTION_SIZE)
        if images.shape[-2:] != size:
            images = functional.interpolate(
                images.float(), size, mode="bicubic", antialias=True, align_corners=False
            )
        levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        return self._network(levels)[0].float().cpu()


def load_evaluator(folder: Path | str, model: UnCLIP | None = None) -> Clip:
    """Open the CLIP that judges, in float32, so that every machine gives the same verdict.

    Args:
        folder: a CLIP folder, or a model folder with one in it.
        model: whom it judges.

    Raises:
        CheckpointError: there is no CLIP.
        OptionError: it is the model's own.
    """
    folder = Path(folder)
    if (folder / "clip" / WEIGHTS).is_file():
        folder = folder / "clip"
    clip = load_stage(folder, choose_runtime(precision="fp32"))
    if not isinstance(clip, Clip):
        raise CheckpointError(f"{folder} holds no CLIP but a {clip.name}; name an evaluator")
    if model is not None:
        with model.clip.use() as own:
            same = _tower(own) == _tower(clip)
        if same:
            raise OptionError(
                f"{folder} is the model's own CLIP, which it was trained to please; name another"
            )
    return clip


def embed(
    features: Features, images: Iterable[Float[Tensor, "3 h w"]], batch: int = 32
) -> Float[Tensor, "n k"]:
    """Features of a sequence of pictures of one size, a batch in memory at a time."""
    rows, waiting = [], []
    for image in images:
        waiting.append(image)
        if len(waiting) == batch:
            rows.append(features(torch.stack(waiting)))
            waiting = []
    if waiting:
        rows.append(features(torch.stack(waiting)))
    return torch.cat(rows)


def _tower(clip: Clip) -> str | None:
    return identify(clip.state_dict().items()).image
