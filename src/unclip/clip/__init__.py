"""CLIP: captions and images in one embedding space."""
