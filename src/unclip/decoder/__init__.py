"""The decoder: from a CLIP image embedding to a 64-pixel image."""
