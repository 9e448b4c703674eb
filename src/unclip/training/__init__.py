"""The one trainer of all stages, on accelerate (§1.7 for the paper's figures)."""
