"""Gaussian diffusion for every stage (§4): it knows no network, only callables ``(x_t, t)``."""
