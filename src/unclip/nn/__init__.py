"""Blocks that know no stage: layers, the transformer, the ADM U-Net."""
