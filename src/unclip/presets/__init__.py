"""Named sizes and training recipes: `tiny` for tests, `emoji` for a laptop, `paper` for Table 3.

A preset says how each stage is built, trained and sampled.
"""

from unclip.errors import OptionError
from unclip.presets.emoji import EMOJI, EMOJI_GPU
from unclip.presets.paper import PAPER
from unclip.presets.parts import Preset as Preset
from unclip.presets.tiny import TINY

PRESETS = {"tiny": TINY, "emoji": EMOJI, "emoji-gpu": EMOJI_GPU, "paper": PAPER}


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        OptionError: if there is none of that name.
    """
    if name not in PRESETS:
        raise OptionError(f"no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]
