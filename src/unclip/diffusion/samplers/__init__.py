"""Walks from noise to data, one family a file: generators of `Step` that return the sample.

They read a network through a `Denoiser` and know neither networks, targets nor options.
"""
