"""Ranks that say where they are chance: scores closer than the noise of scoring are tied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import matrix, not_negative, vector

if TYPE_CHECKING:
    from clipcond.score.checks import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class TiedRanks:
    """An order of pictures, and the ranks that each could have had.

    order: row numbers, best first.   first, last: for each row the best and the worst rank, from 1, that it takes when
    every score moves by less than half of the noise.
    """

    order: tuple[int, ...]
    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def tied(self) -> tuple[bool, ...]:
        """True for each row whose rank is open."""
        return tuple(first != last for first, last in zip(self.first, self.last, strict=True))


def noise_floor(runs: Numbers) -> float:
    """The largest difference between two scorings of one picture.

    runs: (R, N) the same N pictures scored R times, with other batch sizes for example.   Raises ConfigError unless R is
    2 or more.
    """
    scores = matrix("runs", runs)
    if len(scores) < 2:
        raise ConfigError(f"runs: there is {len(scores)} scoring; expected 2 or more of the same pictures")
    return float(np.ptp(scores, axis=0).max(initial=0.0))


def tied_ranks(scores: Numbers, paths: Sequence[str], *, noise: float = 0.0) -> TiedRanks:
    """Order by score, highest first, then by path; the order of the rows does not matter.

    scores: (N,).   paths: N different names.   noise: as `noise_floor` measures it. Scores further apart are in the same
    order in every run; nearer ones may change places from run to run, and those rows are marked as tied.
    Raises ConfigError for a path given twice.
    """
    values = vector("scores", scores)
    if len(paths) != len(values) or len(set(paths)) != len(paths):
        raise ConfigError(
            f"paths: expected {len(values)} different ones, given {len(set(paths))} different of {len(paths)}"
        )
    width = not_negative("noise", noise)
    order = sorted(range(len(values)), key=lambda row: (-values[row], paths[row]))
    ordered = np.sort(values)
    first = len(values) - np.searchsorted(ordered, values + width, side="right") + 1
    last = len(values) - np.searchsorted(ordered, values - width, side="left")
    return TiedRanks(order=tuple(order), first=tuple(first.tolist()), last=tuple(last.tolist()))
