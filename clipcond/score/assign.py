"""Prompts × pictures: the best picture for each prompt, the best prompt for each picture, and one for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class BestPairs:
    """The best both ways. picture_of: for each prompt a picture's number; prompt_of: for each picture a prompt's."""

    picture_of: tuple[int, ...]
    prompt_of: tuple[int, ...]


def best_pairs(scores: Numbers) -> BestPairs:
    """The best picture for each prompt and the best prompt for each picture; of equals the first.

    scores: (M, N) of M prompts and N pictures, on one scale: prompts differ in how high any picture scores, so
    normalise within the prompt before asking for the best prompt.   Raises ConfigError where there is none of either.
    """
    table = _table(scores)
    return BestPairs(picture_of=tuple(table.argmax(axis=1).tolist()), prompt_of=tuple(table.argmax(axis=0).tolist()))


def one_to_one(scores: Numbers) -> tuple[tuple[int, int], ...]:
    """(prompt, picture) numbers, each at most once, with the largest sum of scores; min(M, N) of them, by prompt.

    scores: (M, N).   Exact, in time that grows with min(M, N)² · max(M, N): shortest augmenting paths. (Kuhn 1955;
    Jonker and Volgenant 1987.)   Raises ConfigError where there is none of either.
    """
    table = _table(scores)
    flipped = table.shape[0] > table.shape[1]
    cost = table.max() - (table.T if flipped else table)
    columns = _assigned(cost)
    pairs = [(column, row) if flipped else (row, column) for row, column in enumerate(columns)]
    return tuple(sorted(pairs))


def _table(scores: Numbers) -> NDArray[np.float64]:
    table = matrix("scores", scores)
    if not table.size:
        raise ConfigError(f"scores: the shape is {table.shape}; expected one prompt and one picture or more")
    return table


def _assigned(cost: NDArray[np.float64]) -> list[int]:
    """The column of each row with the least sum of costs. cost: (R, C), R ≤ C, 0 or more."""
    rows, columns = cost.shape
    price = np.zeros(columns)  # what a column's row pays; cost − price of row − price of column is never below 0
    row_price = np.zeros(rows)
    row_of = np.full(columns, -1)
    for row in range(rows):
        distance = np.full(columns, np.inf)
        before = np.full(columns, -1)
        done = np.zeros(columns, dtype=bool)
        here, column, reached = row, -1, 0.0
        while True:
            through = reached + cost[here] - row_price[here] - price
            shorter = ~done & (through < distance)
            distance[shorter], before[shorter] = through[shorter], column
            column = int(np.where(done, np.inf, distance).argmin())
            reached = float(distance[column])
            if row_of[column] < 0:
                break
            done[column] = True
            here = int(row_of[column])
        row_price[row] += reached
        row_price[row_of[done]] += reached - distance[done]
        price[done] -= reached - distance[done]
        while column >= 0:  # turn the path round
            earlier = int(before[column])
            row_of[column] = row if earlier < 0 else row_of[earlier]
            column = earlier
    column_of = np.empty(rows, dtype=np.intp)
    column_of[row_of[row_of >= 0]] = np.flatnonzero(row_of >= 0)
    result: list[int] = column_of.tolist()
    return result
