"""``unclip merge``: an adapter and the stage it was trained on, as one stage."""

from pathlib import Path


def merge(stage: Path, adapter: Path, output: Path, /) -> None:
    """Add a LoRA adapter to the weights it was trained on, as a stage of its own.

    For example:

        unclip merge mine/decoder tuned/training/decoder/adapter mine/decoder-tuned

    Args:
        stage: The stage folder the adapter was trained on.
        adapter: The adapter's folder.
        output: The stage folder to write; it must not exist.
    """
    from unclip.adapter import merge as add
    from unclip.checkpoint import load_stage, save_stage
    from unclip.errors import OptionError

    if output.exists():
        raise OptionError(f"{output} exists already; choose another folder")
    loaded = load_stage(stage)
    add(loaded, adapter)
    save_stage(loaded, output)
    print(f"{output}: the {loaded.name} with its adapter")
