"""What priors of every kind see of a caption, or of none (§1.3, §1.4)."""

from unclip.nn.unconditional import Unconditional, UnconditionalKind, pad

__all__ = ["Unconditional", "UnconditionalKind", "pad"]
