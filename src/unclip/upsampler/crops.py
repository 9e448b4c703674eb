"""Where to cut training crops: aligned with the low-res grid, and rather where something is.

The paper cuts a quarter of the side at random (§1.6); on drawings most such crops are blank and
teach nothing. Knows numpy images only; the data loader calls it.
"""

import numpy as np
from jaxtyping import UInt8


def choose_crop(
    image: UInt8[np.ndarray, "h w c"],
    size: int,
    multiple: int,
    rng: np.random.Generator,
    candidates: int = 1,
) -> tuple[int, int]:
    """Choose the top and left of a square crop, both multiples of ``multiple``.

    Args:
        image: at least ``size`` a side.
        size: side of the crop.
        multiple: the upsampling factor, so that high-res and low-res crops align.
        rng: the sample's own generator; the same number of draws whatever the image.
        candidates: places drawn uniformly; one of them is taken with a probability that grows
            with the mean gradient there. 1 is the paper's uniform crop.
    """
    height, width = image.shape[:2]
    assert size <= min(height, width), (size, image.shape)
    tops = multiple * rng.integers((height - size) // multiple + 1, size=candidates)
    lefts = multiple * rng.integers((width - size) // multiple + 1, size=candidates)
    pick = rng.random()
    if candidates == 1:
        return int(tops[0]), int(lefts[0])
    scores = [
        _edges(image[top : top + size, left : left + size])
        for top, left in zip(tops, lefts, strict=True)
    ]
    # Blank crops keep a small share: flat areas have to stay flat.
    weights = np.asarray(scores) + 0.05 * max(scores) + 1e-6
    cumulative = np.cumsum(weights / weights.sum())
    chosen = min(int(np.searchsorted(cumulative, pick)), candidates - 1)
    return int(tops[chosen]), int(lefts[chosen])


def _edges(crop: UInt8[np.ndarray, "h w c"]) -> float:
    levels = crop.astype(np.int16)
    return float(np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean())
