"""Arithmetic on conditioning tensors: lengths, pooled vectors."""
