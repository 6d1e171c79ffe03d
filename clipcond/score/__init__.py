"""Arithmetic on vectors: similarity, selection, retrieval."""
