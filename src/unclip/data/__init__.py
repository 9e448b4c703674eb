"""Captioned images: folders, metadata files and tar shards to batches."""
