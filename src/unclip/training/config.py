"""How a stage is trained: the numbers of Table 3 (§1.7) and those the paper leaves out."""

from typing import Literal

from pydantic import Field

from unclip.config import Config


class TrainingConfig(Config):
    """How a stage is trained. Table 3 of the paper has its figures (§1.7)."""

    steps: int = Field(gt=0)
    """Optimiser steps; the cosine ends there."""
    batch: int = Field(gt=0)
    """Images per optimiser step, over all processes and accumulated parts."""
    accumulate: int = Field(default=1, gt=0)
    """Parts a process computes its share of the batch in; less memory, same gradient, except for
    CLIP, which contrasts the samples of one part only."""
    lr: float = Field(gt=0)
    optimizer: Literal["adamw", "muon", "adafactor"] = "adamw"
    """``muon`` makes the updates of matrices orthogonal: fewer steps for small networks trained
    from scratch, at AdamW's learning rate. ``adafactor`` keeps a few numbers per row and column
    instead of two per weight; its rate is relative to a weight's size: 1e-3 to fine-tune."""
    sam_radius: float = Field(default=0.0, ge=0)
    """Take gradients this far uphill (SAM, with any optimiser): flatter minima, and a CLIP whose
    embeddings need fewer dimensions, for twice the computation. The paper's is 0.1; 0 is off."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's, as is ``eps``; with Muon, those of what is no matrix."""
    eps: float = 1e-8
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled; of the weights of linear layers and convolutions only."""
    warmup: int = Field(default=1000, ge=0)
    """Steps."""
    rewarm: int = Field(default=200, ge=0)
    """Steps of a second warm-up after resuming without the optimiser's state."""
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float = Field(default=1.0, ge=0)
    """Largest norm of the gradient; 0 leaves it alone."""
    ema_half_life: float | None = Field(default=None, ge=0)
    """Images; by default 5 % of those of the whole training. 0: no averaging, and no memory for
    it."""
    ema_ramp: float = Field(default=0.05, gt=0)
    """The half-life is at most this share of the images seen so far."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Of the computation, and of frozen matrices; what is trained, and its optimiser, is
    float32."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""
    seed: int = 0
    log_every: int = Field(default=50, gt=0)
    """Steps, as below."""
    save_every: int = Field(default=1000, gt=0)
    preview_every: int = Field(default=1000, ge=0)
    """0: never."""
    preview_steps: int = Field(default=50, gt=0)
    """Sampling steps of previews at most: while the first process draws, the others wait."""
    keep: int = Field(default=1, gt=0)
    """States to keep; older ones are deleted."""

    @property
    def half_life(self) -> float:
        """Half-life of the moving average, in images."""
        default = 0.05 * self.steps * self.batch
        return default if self.ema_half_life is None else self.ema_half_life
