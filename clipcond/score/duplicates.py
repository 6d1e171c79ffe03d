"""Near-duplicate pictures: groups by cosine, and which of a group to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipcond.errors import ConfigError
from clipcond.score.checks import at_least_one, not_negative, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

DUPLICATE_COSINE = 0.94  # clip-retrieval's
_EXACT_AT_ONCE = 8192  # pairs whose cosine is computed again in float64
_DIGITS = 12  # of an exact cosine: what does not depend on how it was summed


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A picture of a group: what decides whether it is the one to keep."""

    path: str
    score: float
    pixels: int
    modified: float  # seconds since 1970


def near_duplicates(
    images: Numbers, *, threshold: float = DUPLICATE_COSINE, block: int = 2048
) -> tuple[tuple[int, ...], ...]:
    """Groups of two and more rows, connected by pairs with a cosine of `threshold` or more.

    images: (N, P), made unit length.   block: rows and columns compared at a time; it changes no result. Beside the
    vectors in float64 and float32, memory grows with block² alone.   A group is a chain: its ends may be less alike than
    `threshold` (unit vectors at 0°, 18° and 36° are one group at 0.94).   Returns ascending row numbers, the groups in
    the order of their first rows. Raises ConfigError for a threshold outside of -1 to 1.
    """
    if not -1 <= threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; expected a cosine from -1 to 1")
    rows = unit_rows("images", images)
    parent = np.arange(len(rows))
    for left, right in _pairs(rows, threshold, at_least_one("block", block)):
        _join(parent, left, right)
    roots = _roots(parent, parent)
    order = np.argsort(roots, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(roots[order])) + 1)
    return tuple(tuple(group.tolist()) for group in groups if len(group) > 1)


def best_of_group(candidates: Sequence[Candidate], *, noise: float = 0.0) -> int:
    """Index of the picture to keep: the highest score, then the most pixels, the oldest file, the first path.

    noise: scores within it of the best count as equal to it, so that chance does not choose a smaller copy.
    The oldest of equals is the original. Raises ConfigError for no candidates, and for a score that is NaN or infinite.
    """
    if not candidates:
        raise ConfigError("there is no picture to choose from; expected one or more")
    wrong = [one.path for one in candidates if not np.isfinite(one.score)]
    if wrong:
        raise ConfigError(f"the score of {wrong[0]} is no finite number; leave the picture out")
    best = max(one.score for one in candidates) - not_negative("noise", noise)
    good = [index for index, one in enumerate(candidates) if one.score >= best]
    return min(good, key=lambda index: _preference(candidates[index]))


def _preference(one: Candidate) -> tuple[int, float, str]:
    return -one.pixels, one.modified, one.path


def _pairs(
    rows: NDArray[np.float64], threshold: float, block: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs (i, j) of rows at `threshold` or above, tile by tile of the upper triangle.

    float32 decides what is clear of the threshold by more than it can err; the rest is computed in float64.
    """
    quick = rows.astype(np.float32)
    doubt = rows.shape[1] * float(np.finfo(np.float32).eps)
    for top in range(0, len(rows), block):
        for left in range(top, len(rows), block):
            cosines = quick[top : top + block] @ quick[left : left + block].T
            near = cosines >= threshold - doubt
            first, second = np.nonzero(np.triu(near, 1) if left == top else near)
            clear = cosines[first, second] >= threshold + doubt
            first, second = first + top, second + left
            yield first[clear], second[clear]
            yield _exact(rows, first[~clear], second[~clear], threshold)


def _exact(
    rows: NDArray[np.float64], first: NDArray[np.intp], second: NDArray[np.intp], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    keep = np.zeros(len(first), dtype=bool)
    for start in range(0, len(first), _EXACT_AT_ONCE):
        part = slice(start, start + _EXACT_AT_ONCE)
        cosines = np.einsum("np,np->n", rows[first[part]], rows[second[part]])
        keep[part] = np.round(cosines, _DIGITS) >= round(threshold, _DIGITS)
    return first[keep], second[keep]


def _join(parent: NDArray[np.intp], left: NDArray[np.intp], right: NDArray[np.intp]) -> None:
    """Union of the sets of each pair, in place; a root is the least row of its set."""
    while len(left):
        first, second = _roots(parent, left), _roots(parent, right)
        apart = first != second
        left, right = left[apart], right[apart]
        high, low = np.maximum(first, second)[apart], np.minimum(first, second)[apart]
        np.minimum.at(parent, high, low)


def _roots(parent: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray[np.intp]:
    roots = parent[rows]
    while not np.array_equal(above := parent[roots], roots):
        roots = above
    parent[rows] = roots  # so that the next search is short
    return roots
