"""Small random batches that every kind of prior is tested on."""

import torch
from torch import Tensor

from unclip.types import Batch, TextFeatures

D, F, N = 16, 12, 8


def units(*shape: int, seed: int) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(numbers, dim=-1)


def batch_of(b: int, d: int = D) -> Batch:
    """Unit embeddings, and texts of two tokens and more."""
    words = torch.randint(1, 50, (b, 10), generator=torch.Generator().manual_seed(4))
    caption_mask = torch.arange(10) < 3 + torch.arange(b)[:, None] % 7
    text = TextFeatures(
        embedding=units(b, d, seed=1),
        states=units(b, N, F, seed=2) * F**0.5,
        mask=torch.arange(N) < 2 + torch.arange(b)[:, None] % (N - 1),
        caption=words * caption_mask,
        caption_mask=caption_mask,
    )
    keys = tuple(f"sample {i}" for i in range(b))
    return Batch(keys, text=text, image_embedding=units(b, d, seed=3))


def text_of(batch: Batch) -> TextFeatures:
    assert batch.text is not None
    return batch.text
