"""A large gallery on disk: centred one-bit codes that are compared in memory, and half-precision vectors that decide.

CLIP's vectors share a long mean (0.87 for natural pictures), so the sign of a number says little and the sign of its
difference from the mean nearly all. A query is compared with all codes, and the rows that seem nearest are compared again
by their cosine. There is nothing to train; rows are added in segments, each a file that appears whole or not at all, so
that a kill loses no more than the segment that was being written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.errors import DataError
from clipcond.find.codes import Comparison, comparison, query_codes
from clipcond.find.segments import Segment
from clipcond.score.checks import at_least_one, matrix, unit_rows, vector
from clipcond.score.zero_shot import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

    Rows = NDArray[np.bool_] | None  # of the index: which may be found, None for all

RESCORED = 1000  # rows whose cosine is computed, of those whose codes are nearest
_ROWS_AT_ONCE = 1 << 14  # whose codes fit a processor's cache
_LOOKED_AT = 1 << 16  # distances at a time
_NEVER = np.uint16(np.iinfo(np.uint16).max)  # the distance of a row that may not be found


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A row of the gallery: its number, its name and its cosine with the query."""

    row: int
    name: str
    cosine: float


class BitIndex:
    """The segments of a gallery, searched together. They must be of one width and one mean.

    by: how codes are compared; the fastest way there is where it is left out.
    Raises DataError where the segments are not of one index, and where there is none.
    """

    def __init__(self, segments: Sequence[Segment], *, by: Comparison | None = None) -> None:
        self.segments = tuple(segments)
        if not self.segments:
            raise DataError("the index holds no segment; add vectors first")
        first = self.segments[0]
        for segment in self.segments[1:]:
            if segment.width != first.width or not np.array_equal(segment.mean, first.mean):
                raise DataError(f"{segment.path} belongs to another index than {first.path}")
        self.mean, self.width = np.asarray(first.mean), first.width
        self.by = by or comparison()
        self.starts = np.cumsum([0, *(segment.count for segment in self.segments)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def search(self, query: Numbers, k: int, *, rescored: int = RESCORED, among: Rows = None) -> list[Hit]:
        """The k rows that are nearest a query, (P,), by cosine, out of the `rescored` whose codes are nearest."""
        asked = vector("query", query, self.width)
        return self._hits(self._rescored(asked, self._distances(asked, among), k, rescored))

    def search_exact(self, query: Numbers, k: int, *, among: Rows = None) -> list[Hit]:
        """The k rows with the highest cosine to a query, (P,). Every vector is read."""
        asked = vector("query", query, self.width)[None]
        return self._hits(self._exact(asked, k, among)[0])

    def recall(
        self, k: int = 10, *, queries: Numbers, itself: bool = False, rescored: Sequence[int] = (RESCORED,)
    ) -> tuple[float, ...]:
        """The shares of the k truly nearest that `search` finds with each number of `rescored` rows, means over queries.

        queries: (Q, P).   itself: they are rows of the index, and each is left out of what it finds.
        """
        at_least_one("k", k)
        asked, skip = matrix("queries", queries, self.width), int(itself)
        found, total = np.zeros(len(rescored)), 0
        for query, truth in zip(asked, self._exact(asked, k + skip, None), strict=True):
            right = {row for row, _ in truth[skip:]}
            total += len(right)
            distances = self._distances(query, None)
            for place, count in enumerate(rescored):
                some = self._rescored(query, distances, k + skip, count)
                found[place] += len(right & {row for row, _ in some[skip:]})
        return tuple(float(share) for share in found / max(1, total))

    def sample(self, count: int, seed: int = 0) -> NDArray[np.float64]:
        """(count, P) vectors of rows drawn at random, all where there are fewer."""
        rows = np.random.default_rng(seed).choice(len(self), size=min(count, len(self)), replace=False)
        return self.vectors(np.sort(rows)).astype(np.float64)

    def vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, P) vectors of ascending rows."""
        of = np.searchsorted(self.starts, rows, side="right") - 1
        found = [self.segments[n].rows(rows[of == n] - self.starts[n]) for n in np.unique(of)]
        return np.concatenate([np.zeros((0, self.width), np.float32), *found])

    def records(self, field: str) -> NDArray[Any]:
        """(N,) numbers of a field of all rows' records. Raises DataError where a segment has none."""
        if any(len(segment.records) != segment.count for segment in self.segments):
            raise DataError("the index says nothing of its rows; it was made without records")
        return np.concatenate([segment.records[field] for segment in self.segments])

    def place(self, row: int) -> tuple[Segment, int]:
        """The segment that holds a row, and the row's number in it."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[number], row - int(self.starts[number])

    def _hits(self, rows: Sequence[tuple[int, float]]) -> list[Hit]:
        hits = []
        for row, cosine in rows:
            segment, own = self.place(row)
            hits.append(Hit(row=row, name=segment.name(own), cosine=cosine))
        return hits

    def _rescored(
        self, query: NDArray[np.float64], distances: NDArray[np.uint16], k: int, rescored: int
    ) -> list[tuple[int, float]]:
        """Rows and cosines of the k best among those whose codes differ least."""
        rows = _smallest(distances, max(k, at_least_one("rescored", rescored)))
        best = nearest(query[None], self.vectors(rows), k)
        return [(int(rows[c]), float(s)) for c, s in zip(best.columns[0], best.scores[0], strict=True)]

    def _distances(self, query: NDArray[np.float64], among: Rows) -> NDArray[np.uint16]:
        """(N,), of each row's code from the query; the highest number for rows that may not be found."""
        code = query_codes(unit_rows("query", query[None])[0], self.mean)
        distances = np.empty(len(self), dtype=np.uint16)

        def compare(block: tuple[int, NDArray[np.uint64]]) -> None:
            start, codes = block
            distances[start : start + len(codes)] = self.by.distances(codes, code)

        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for _ in pool.map(compare, self._blocks()):
                pass
        if among is not None:
            distances[~among] = _NEVER
        return distances

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        for start, segment in zip(self.starts[:-1], self.segments, strict=True):
            for at in range(0, segment.count, _ROWS_AT_ONCE):
                yield int(start) + at, segment.codes[at : at + _ROWS_AT_ONCE]

    def _exact(self, queries: NDArray[np.float64], k: int, among: Rows) -> list[list[tuple[int, float]]]:
        """Rows and cosines of the k best of each query, block after block."""
        found: list[list[tuple[int, float]]] = [[] for _ in queries]
        for start, segment in zip(self.starts[:-1], self.segments, strict=True):
            for at in range(0, segment.count, _ROWS_AT_ONCE):
                part, first = segment.vectors[at : at + _ROWS_AT_ONCE], int(start) + at
                own = np.arange(len(part)) if among is None else np.flatnonzero(among[first : first + len(part)])
                if not len(own):
                    continue
                best = nearest(queries, part[own], k)
                for mine, columns, scores in zip(found, best.columns, best.scores, strict=True):
                    mine += [(first + int(own[c]), float(s)) for c, s in zip(columns, scores, strict=True)]
            found = [sorted(mine, key=lambda each: (-each[1], each[0]))[:k] for mine in found]
        return found


def _smallest(distances: NDArray[np.uint16], most: int) -> NDArray[np.intp]:
    """The rows with the smallest distances, `most` of them or all that may be found; of equals the first rows."""
    rows, limit = np.zeros(0, dtype=np.intp), _NEVER
    for start in range(0, len(distances), _LOOKED_AT):
        own = start + np.flatnonzero(distances[start : start + _LOOKED_AT] < limit)
        rows = np.concatenate([rows, own])
        if len(rows) >= 4 * most or (start + _LOOKED_AT >= len(distances) and len(rows) > most):
            order = np.argsort(distances[rows], kind="stable")[:most]
            limit = distances[rows[order[-1]]]  # of later rows only nearer ones count
            rows = np.sort(rows[order])
    return rows
