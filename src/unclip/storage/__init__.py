"""Weights on disk: read where they lie, tensor by tensor; folders written whole or not at all."""
