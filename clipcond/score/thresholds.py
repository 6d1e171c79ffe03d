"""Thresholds of a decision from labelled examples, for a wanted precision or recall, with how sure each number is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.checks import vector
from clipcond.score.statistics import LEVEL, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

_Z = 1.959963984540054  # of a two-sided interval of 95 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold and what it does on the examples: those scored at or above it are the positives it names.

    precision: None where it names none.   named, right, positives: counts of examples.
    """

    threshold: float
    precision: Interval | None
    recall: Interval
    named: int
    right: int
    positives: int


def wilson(successes: int, trials: int) -> Interval:
    """A share with Wilson's interval of 95 %, which holds at 0 and 1 too (Wilson 1927). Raises ConfigError for no trial."""
    if not 0 <= successes <= trials or not trials:
        raise ConfigError(f"{successes} of {trials}: expected one trial or more, and no more successes than trials")
    share, square = successes / trials, _Z**2
    middle = (share + square / (2 * trials)) / (1 + square / trials)
    half = _Z / (1 + square / trials) * float(np.sqrt(share * (1 - share) / trials + square / (4 * trials**2)))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return Interval(value=share, low=low, high=high, level=LEVEL)


def threshold_for(
    scores: Numbers,
    positives: Sequence[bool] | NDArray[np.bool_],
    *,
    precision: float | None = None,
    recall: float | None = None,
) -> Calibration:
    """The threshold that reaches one of the two, and is as good as it can be at the other.

    scores: (N,).   positives: which of them should be named.   precision: the lowest threshold, so the most recall, with
    at least this share of right ones among those named.   recall: the highest threshold that finds at least this share.
    A threshold lies half way between two scores, so that it separates others like them.
    Raises ConfigError unless one of the two is given, from 0 to 1; without a positive and a negative; and for a
    precision that no threshold reaches.
    """
    values, right = vector("scores", scores), np.asarray(positives, dtype=bool)
    if right.shape != values.shape:
        raise ShapeError(f"positives: the shape is {right.shape}; expected ({len(values)},)")
    if (precision is None) == (recall is None):
        raise ConfigError("give a precision or a recall, one of the two")
    wanted = precision if precision is not None else recall
    assert wanted is not None
    if not 0 < wanted <= 1:
        raise ConfigError(f"the wanted share is {wanted:g}; expected above 0, up to 1")
    if right.all() or not right.any():
        raise ConfigError("expected examples of both kinds, with the label and without")
    levels = np.unique(values)[::-1]  # a candidate names all that score at least so much
    named = np.array([(values >= level).sum() for level in levels])
    hits = np.array([(values[right] >= level).sum() for level in levels])
    if recall is not None:
        at = int(np.flatnonzero(hits >= recall * right.sum() - 1e-9)[0])
    else:
        reached = np.flatnonzero(hits >= wanted * named - 1e-9)
        if not len(reached):
            best = float((hits / named).max())
            raise ConfigError(f"no threshold names {wanted:.0%} right ones; the most is {best:.0%}")
        at = int(reached[-1])
    below = levels[at + 1] if at + 1 < len(levels) else levels[at]
    return measured(values, right, float((levels[at] + below) / 2) if below < levels[at] else float(levels[at]))


def measured(scores: Numbers, positives: Sequence[bool] | NDArray[np.bool_], threshold: float) -> Calibration:
    """Precision and recall of a threshold on examples. Raises ConfigError without a positive."""
    values, right = vector("scores", scores), np.asarray(positives, dtype=bool)
    named = values >= threshold
    hits, count, total = int((named & right).sum()), int(named.sum()), int(right.sum())
    return Calibration(
        threshold=threshold, precision=wilson(hits, count) if count else None, recall=wilson(hits, total),
        named=count, right=hits, positives=total,
    )  # fmt: skip
