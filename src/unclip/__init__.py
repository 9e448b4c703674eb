"""unCLIP (arXiv 2204.06125): text to image through CLIP image embeddings."""

__version__ = "0.1.0"
