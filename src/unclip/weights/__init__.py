"""Other people's checkpoints, read and renamed into ours (docs/weights.md)."""
