"""Arithmetic on vectors: how alike they are, which to choose, how well they find one another."""
