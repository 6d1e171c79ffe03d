"""Rank correlation of two columns: Spearman's rho and Kendall's tau-b, ties counted as ties."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.score.checks import vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

_BLOCK = 512  # rows whose pairs are counted at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Concordance:
    """Pairs of rows by the order in two columns."""

    concordant: int
    discordant: int
    tied_first: int  # in the first column alone
    tied_second: int  # in the second column alone
    tied_both: int

    @property
    def pairs(self) -> int:
        """All pairs."""
        return self.concordant + self.discordant + self.tied_first + self.tied_second + self.tied_both

    @property
    def decided(self) -> int:
        """Pairs that the second column orders."""
        return self.concordant + self.discordant + self.tied_first

    @property
    def credit(self) -> float:
        """Decided pairs that the first column orders alike, its ties half."""
        return self.concordant + self.tied_first / 2


def concordance(first: Numbers, second: Numbers) -> Concordance:
    """Count the pairs of rows that two columns order alike, unlike or not at all.

    first, second: (N,).   Time grows with N², memory with N.
    """
    one = vector("first", first)
    other = vector("second", second, len(one))
    alike = unlike = tied_one = tied_other = tied_both = 0
    for start in range(0, len(one), _BLOCK):
        rows = slice(start, min(start + _BLOCK, len(one)))
        later = np.arange(start, len(one)) > np.arange(rows.start, rows.stop)[:, None]
        a, b = (_signs(column[rows], column[start:]) for column in (one, other))
        product = (a * b)[later]
        alike += int((product > 0).sum())
        unlike += int((product < 0).sum())
        both = int(((a == 0) & (b == 0) & later).sum())
        tied_both += both
        tied_one += int(((a == 0) & later).sum()) - both
        tied_other += int(((b == 0) & later).sum()) - both
    return Concordance(
        concordant=alike, discordant=unlike, tied_first=tied_one, tied_second=tied_other, tied_both=tied_both
    )


def _signs(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.int8]:
    """1, 0 or -1 for each of `first` against each of `second`; compared, as a difference may overflow."""
    return (first[:, None] > second).astype(np.int8) - (first[:, None] < second).astype(np.int8)


def kendall(first: Numbers, second: Numbers) -> float:
    """Kendall's tau-b, from -1 to 1; 0 where a column is constant, which orders nothing.

    (C − D) / √((C + D + ties of the first)(C + D + ties of the second)).   first, second: (N,).   (Kendall 1945.)
    """
    counts = concordance(first, second)
    strict = counts.concordant + counts.discordant
    size = math.sqrt((strict + counts.tied_first) * (strict + counts.tied_second))
    return (counts.concordant - counts.discordant) / size if size else 0.0


def spearman(first: Numbers, second: Numbers) -> float:
    """Spearman's rho, from -1 to 1: Pearson's correlation of the ranks; 0 where a column is constant.

    first, second: (N,).   Ties take the mean of their ranks.
    """
    one = average_ranks(first)
    other = average_ranks(vector("second", second, len(one)))
    middle = (len(one) + 1) / 2
    one, other = one - middle, other - middle
    size = math.sqrt(float(one @ one) * float(other @ other))
    return max(-1.0, min(1.0, float(one @ other) / size)) if size else 0.0


def average_ranks(values: Numbers) -> NDArray[np.float64]:
    """Ranks from 1, the least first; equal values take the mean of their ranks. values: (N,). Returns (N,) float64."""
    column = vector("values", values)
    ordered = np.sort(column)
    below = np.searchsorted(ordered, column, side="left")
    up_to = np.searchsorted(ordered, column, side="right")
    ranks: NDArray[np.float64] = (below + up_to + 1) / 2
    return ranks
