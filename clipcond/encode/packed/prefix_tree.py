"""Rows that begin alike, as a tree: each different beginning is one node.

In a causal encoder the state at a position depends on the symbols up to there and on nothing else, a symbol being the
token id, whether the place is masked, and the vector that stands there. So places with the same beginning have the
same state in every layer, and only the first of them needs computing: a masked variant of a row costs its tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clipcond.encode.rows import TokenSequence

_CUT = -(1 << 62)  # the symbol of places behind a row that was cut


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixTree:
    """N rows, sorted so that rows that begin alike stand together, and the M nodes of their places; all on the CPU."""

    order: tuple[int, ...]  # which of the given rows stands at each of the N places
    starts: Tensor  # (N,) int64: the first position that the rows before do not have already
    ends: Tensor  # (N,) int64: how many positions each row has
    nodes: Tensor  # (N, L) int64: the node of each place; any node behind a row's end

    @property
    def size(self) -> int:
        """M, the number of nodes."""
        return int((self.ends - self.starts).sum())

    @property
    def first_places(self) -> tuple[Tensor, Tensor]:
        """(M,) the row and (M,) the position at which each node occurs first."""
        return torch.nonzero(_new(self.starts, self.ends, self.nodes.shape[1]), as_tuple=True)  # type: ignore[return-value]

    def part(self, first: int, last: int) -> PrefixTree:
        """The tree of the rows first to last (exclusive) alone."""
        starts, ends = self.starts[first:last].clone(), self.ends[first:last]
        starts[0] = 0
        length = self.nodes.shape[1]
        return PrefixTree(order=self.order[first:last], starts=starts, ends=ends, nodes=_nodes(starts, ends, length))


def prefix_tree(rows: Sequence[TokenSequence], ends: Sequence[int] | None = None) -> PrefixTree:
    """The tree of N rows of one length L; with `ends`, of rows that are cut there."""
    symbols = _symbols(rows)
    length = symbols.shape[1]
    if ends is not None:
        symbols.masked_fill_(torch.arange(length) >= torch.tensor(ends)[:, None], _CUT)
    listed = symbols.tolist()
    order = sorted(range(len(rows)), key=listed.__getitem__)
    symbols = symbols[order]
    cut = torch.full((len(rows),), length) if ends is None else torch.tensor(ends)[order]
    starts = torch.zeros(len(rows), dtype=torch.int64)
    starts[1:] = (symbols[1:] == symbols[:-1]).cumprod(dim=1).sum(dim=1)
    starts = torch.minimum(starts, cut)
    return PrefixTree(order=tuple(order), starts=starts, ends=cut, nodes=_nodes(starts, cut, length))


def _symbols(rows: Sequence[TokenSequence]) -> Tensor:
    """(N, L) int64, equal where id, mask and vector are."""
    symbols = torch.tensor([row.ids for row in rows]) * 2
    numbers: dict[str, int] = {}
    for number, row in enumerate(rows):
        for position, digest in row.vectors:
            symbols[number, position] = -2 - 2 * numbers.setdefault(digest, len(numbers))
        if row.masked:
            symbols[number, list(row.masked)] += 1
    return symbols


def _new(starts: Tensor, ends: Tensor, length: int) -> Tensor:
    """(N, L) bool: the places that are the first of their node."""
    positions = torch.arange(length)
    return (positions >= starts[:, None]) & (positions < ends[:, None])


def _nodes(starts: Tensor, ends: Tensor, length: int) -> Tensor:
    """(N, L) node of each place: its own number where it is the first, else that of the nearest row above."""
    new = _new(starts, ends, length)
    numbers = (new.flatten().cumsum(0) - 1).view_as(new)
    return torch.where(new, numbers, 0).cummax(dim=0).values
