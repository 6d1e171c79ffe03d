"""Rows of a batch as a tree of beginnings, each node computed once, by the encoder's own sub-modules."""
