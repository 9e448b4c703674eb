"""Peak memory of fine-tuning Karlo's prior (1.02 billion weights), with random weights and data.

    python benchmarks/finetune_memory.py                   # every method, at 3 and 6 of 20 layers
    python benchmarks/finetune_memory.py --methods lora --layers 20

Each measurement is a process of its own, whose peak resident set the kernel keeps (VmHWM). Memory
is linear in the number of layers; the line through two sizes gives the full one. CLIP's frozen
text tower, 0.25 GB in bfloat16, comes on top. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

RESULT = Path(__file__).with_suffix(".json")
FULL, WIDTH, STATES, TOKENS = 20, 2048, 768, 77
RECIPES: dict[str, dict] = {
    "adamw": {"optimizer": "adamw"},
    "adamw, no average": {"optimizer": "adamw", "ema_half_life": 0},
    "adafactor": {"optimizer": "adafactor"},
    "adafactor, no average": {"optimizer": "adafactor", "ema_half_life": 0},
    "lora": {"optimizer": "adamw"},
}
RANK = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--layers", nargs="+", type=int, default=[3, 6])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.methods[0], arguments.layers[0], arguments.batch, arguments.steps)
        return
    found = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for method in arguments.methods:
        sizes = found.setdefault(method, {})
        for layers in arguments.layers:
            sizes[str(layers)] = in_a_process(method, layers, arguments.batch, arguments.steps)
            print(f"{method}, {layers} layers: {sizes[str(layers)]:.2f} GB", flush=True)
        measured = {int(layers): peak for layers, peak in sizes.items() if layers.isdecimal()}
        if FULL not in measured and len(measured) > 1:
            sizes["extrapolated"] = round(extrapolated(measured), 2)
            print(f"{method}, {FULL} layers by extrapolation: {sizes['extrapolated']:.2f} GB")
        RESULT.write_text(json.dumps(found, indent=2) + "\n")


def extrapolated(measured: dict[int, float]) -> float:
    """The full network's peak, on the line through the smallest and the largest one measured."""
    low, high = min(measured), max(measured)
    slope = (measured[high] - measured[low]) / (high - low)
    return measured[high] + slope * (FULL - high)


def in_a_process(method: str, layers: int, batch: int, steps: int) -> float:
    command = [sys.executable, __file__, "--one", "--methods", method, "--layers", str(layers)]
    command += ["--batch", str(batch), "--steps", str(steps)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(run.stdout.split()[-1])


def measure(method: str, layers: int, batch: int, steps: int) -> None:
    """Train a few steps and print the peak of this process, in GB (10⁹ bytes)."""
    from unclip.training.config import TrainingConfig
    from unclip.training.lora import add_adapter
    from unclip.training.trainer import train

    stage = karlo_prior(layers)
    if method == "lora":
        add_adapter(stage, RANK)
    values = {"steps": steps, "batch": batch, "lr": 1e-5, "precision": "bf16", "log_every": 1}
    values |= {"gradient_checkpointing": True, "warmup": 0}
    config = TrainingConfig(**values, **RECIPES[method])
    with tempfile.TemporaryDirectory() as run:
        train(stage, Embeddings(batch), config, run, device="cpu")
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9)


def karlo_prior(layers: int):
    import torch

    from unclip.diffusion.process import Process
    from unclip.nn.transformer import TransformerConfig
    from unclip.prior.diffusion_prior import DiffusionPrior, DiffusionPriorConfig
    from unclip.prior.network import PriorNetworkConfig

    network = PriorNetworkConfig(
        embedding=STATES,
        text_width=STATES,
        context=TOKENS,
        transformer=TransformerConfig(width=WIDTH, depth=layers, heads=32),
        text_scale=1.0,
    )
    # Not initialised one by one, which takes minutes: what weights are does not matter here.
    with torch.device("meta"):
        stage = DiffusionPrior(DiffusionPriorConfig(network=network, text_drop=0.2))
    stage = stage.to_empty(device="cpu")
    with torch.no_grad():
        for number, tensor in enumerate(stage.parameters()):
            tensor.fill_(1.0 if tensor.ndim == 1 else 1e-3 * (-1) ** number)
    # The noise schedule's tables were built without memory, too.
    stage.process = Process(stage.config.diffusion)
    return stage


class Embeddings:
    """Batches of random text features and image embeddings, as a frozen CLIP would make them."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def batches(self, start: int):
        import torch

        from unclip.types import Batch, TextFeatures

        mask = torch.ones(self.batch, TOKENS, dtype=torch.bool)
        while True:
            generator = torch.Generator().manual_seed(start)
            z_t, z_i = torch.randn(2, self.batch, STATES, generator=generator)
            states = torch.randn(self.batch, TOKENS, STATES, generator=generator)
            text = TextFeatures(z_t, states, mask, mask.long(), mask)
            keys = tuple(f"{start}/{i}" for i in range(self.batch))
            yield Batch(keys, text=text, image_embedding=z_i)
            start += 1


if __name__ == "__main__":
    main()
