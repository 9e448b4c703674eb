"""Where what can be made again is kept for the user."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """``UNCLIP_CACHE``, else ``$XDG_CACHE_HOME/unclip``, else ``~/.cache/unclip``."""
    if own := os.environ.get("UNCLIP_CACHE"):
        return Path(own)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "unclip"
