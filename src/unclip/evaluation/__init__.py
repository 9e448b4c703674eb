"""How good a model is: features, distances between sets of images, retrieval, pixels (§6)."""
