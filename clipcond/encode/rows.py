"""Rows: what one pass of an encoder reads, as plain values that can be compared, hashed and cached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence for an encoder. Equal rows have equal states, whatever batch they are encoded in.

    ids: all L of them, special tokens and padding included.
    masked: the positions that nothing attends to, ascending; never BOS.
    vectors: (position, digest) of each place that takes a vector of a textual inversion and not the row of the token
    table that its id names, ascending; the vectors themselves go beside the rows, by digest.
    """

    ids: tuple[int, ...]
    masked: tuple[int, ...] = ()
    vectors: tuple[tuple[int, str], ...] = ()
