"""Scores made comparable between prompts: z-scores and percentiles within a prompt.

Each is exact under another order of the rows: sums are rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipcond.score.checks import groups_of, vector

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

_ROUNDING = 8 * np.finfo(np.float64).eps  # relative: values this close differ by rounding alone


def z_scores(scores: Numbers, prompts: Sequence[Hashable]) -> NDArray[np.float64]:
    """(score − mean) / population standard deviation within each prompt; 0 where a prompt's scores are all the same.

    scores: (N,).   prompts: N keys; None is a key too.   Returns (N,).
    """
    values = vector("scores", scores)
    result = np.zeros_like(values)
    for rows in groups_of(prompts, len(values)):
        result[rows] = _standardised(values[rows])
    return result


def percentiles(scores: Numbers, prompts: Sequence[Hashable]) -> NDArray[np.float64]:
    """100 · (pictures of the prompt that score less + half of those that score the same) / its pictures.

    scores: (N,).   prompts: N keys.   Returns (N,), each above 0 and below 100; 50 for a picture alone, which counts
    half itself.
    """
    values = vector("scores", scores)
    result = np.empty_like(values)
    for rows in groups_of(prompts, len(values)):
        ordered = np.sort(values[rows])
        below = np.searchsorted(ordered, values[rows], side="left")
        up_to = np.searchsorted(ordered, values[rows], side="right")
        result[rows] = 50.0 * (below + up_to) / len(rows)
    return result


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = np.abs(values).max()
    if largest == 0 or np.ptp(values / largest) <= _ROUNDING:
        return np.zeros_like(values)
    scaled = values / largest  # so that no square overflows or vanishes
    centred = scaled - math.fsum(scaled) / len(scaled)
    centred /= np.abs(centred).max()
    standard: NDArray[np.float64] = centred / math.sqrt(math.fsum(np.square(centred)) / len(centred))
    return standard
