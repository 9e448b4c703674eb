"""What int8 weights would give: a copy of a model whose matrices lie on grids of 255 values.

    python recipes/emoji/int8.py src/unclip/models/emoji runs/emoji-int8
    python recipes/emoji/evaluate.py runs/emoji-int8 --parts captions colours

Each row of a matrix (each output channel of a convolution, each token of an embedding) has a scale
of its own: its largest magnitude is 127. Gains, biases and all else of one axis stay bfloat16. The
copy is stored in float32, which holds those values exactly; what is said is the size it would have.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from unclip.checkpoint import load_stage, read_index, save_stage, write_index

LEVELS = 127


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("copy", type=Path)
    arguments = parser.parse_args()
    index, total, before = read_index(arguments.model), 0, 0
    for folder in index.folders():
        stage = load_stage(arguments.model / folder)
        weights = stage.state_dict()
        for name, weight in weights.items():
            before += 2 * weight.numel()
            total += size(weight)
            weights[name] = rounded(weight)
        stage.load_state_dict(weights)
        save_stage(stage, arguments.copy / folder, dtype=torch.float32)
    write_index(arguments.copy, index)
    print(f"{total / 1e6:.1f} MB in int8, {before / 1e6:.1f} MB in bfloat16")


def matrix(weight: Tensor) -> bool:
    """Whether a tensor would be stored in int8."""
    return weight.is_floating_point() and weight.ndim >= 2


def size(weight: Tensor) -> int:
    """Bytes: one a number and a scale of two bytes a row; two a number for what is no matrix."""
    return weight.numel() + 2 * len(weight) if matrix(weight) else 2 * weight.numel()


def rounded(weight: Tensor) -> Tensor:
    """The nearest values on the grid of each row."""
    if not matrix(weight):
        return weight
    largest = weight.abs().flatten(1).amax(dim=1).view(-1, *[1] * (weight.ndim - 1))
    scale = torch.where(largest > 0, largest / LEVELS, 1.0).bfloat16().to(weight.dtype)
    return (weight / scale).round().clamp(-LEVELS, LEVELS) * scale


if __name__ == "__main__":
    main()
