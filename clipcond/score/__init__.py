"""Arithmetic on vectors and scores: scales, heads, selection, agreement with people, fits, classes and queries."""
