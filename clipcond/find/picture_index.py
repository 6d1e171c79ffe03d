"""An index of pictures that goes on: a folder of segments to which new pictures are added, and that knows which are gone.

Nothing in it is changed. A picture that was changed gets a new row; rows of pictures that are gone or were changed are not
found. Where many rows are such, or many segments small, those segments are written anew as one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.encode.content_key import FileState
from clipcond.errors import DataError, OutputExists
from clipcond.files import write_file
from clipcond.find.bit_index import BitIndex
from clipcond.find.segments import RECORD, SUFFIX, Segment, Source, centre, write_segment

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.rerank.embedding import Picture
    from clipcond.score.checks import Numbers

ROWS = 100_000  # of a segment, at most
RESCORED = (1000, 4000, 16_000)  # rows to compare again, the first that is enough
ENOUGH = 0.98
K = 10
_SMALL, _MANY = ROWS // 4, 16  # rows of a small segment, and how many such are too many
_GROWN = 1.1  # times the rows at which recall is measured again
_MEASURE = "recall.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The share of the ten truly nearest that the index finds, measured on its own rows.

    rows: that it had then.   rescored: how many rows are compared again.   pictures: the share for pictures of the index as
    queries.   words: the same for phrases.   queries: how many of both were asked.
    """

    rows: int
    rescored: int
    pictures: float
    words: float
    queries: int


class PictureIndex:
    """The segments of a folder, which is made when something is added.

    damaged: one line for each segment that could not be read and was removed; its pictures are added anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: list[str] = []
        self.segments: list[Segment] = []
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                self.segments.append(self._fitting(Segment(path)))
            except DataError as error:
                path.unlink(missing_ok=True)
                self.damaged.append(str(error).partition(";")[0] + "; its pictures are added anew")

    def __len__(self) -> int:
        return sum(segment.count for segment in self.segments)

    def index(self) -> BitIndex:
        """Everything that was added. Raises DataError where that is nothing."""
        return BitIndex(self.segments)

    def add(
        self, vectors: Numbers, names: Sequence[str], records: NDArray[Any], sources: Sequence[Source] = ()
    ) -> None:
        """Add rows as a segment. vectors: (N, P).   records: (N,) of RECORD. The first rows give the index its mean."""
        self.folder.mkdir(parents=True, exist_ok=True)
        mean = self.segments[0].mean if self.segments else centre(vectors)
        last = max((int(segment.path.stem) for segment in self.segments), default=-1)
        while True:
            last += 1
            path = self.folder / f"{last:06}{SUFFIX}"
            with suppress(OutputExists):  # by another search at the same time
                self.segments.append(
                    self._fitting(write_segment(path, vectors, names, mean, records=records, sources=sources))
                )
                return

    def places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(F,) number of the row whose record has each key as `seen`, the last of several; −1 where none has."""
        found = np.full(len(keys), -1, dtype=np.int64)
        order = np.argsort(keys)
        start = 0
        for segment in self.segments if len(keys) else ():
            own = segment.records["seen"]
            place = order[np.minimum(np.searchsorted(keys, own, sorter=order), len(keys) - 1)]
            here = np.flatnonzero((keys[place] == own) & (own != 0))
            found[place[here]] = start + here
            start += segment.count
        return found

    def live_sources(
        self, present: Iterable[tuple[str, int, int]]
    ) -> tuple[NDArray[np.bool_], set[tuple[str, int, int]]]:
        """(N,) rows of files that are there as they were, each file's once; and those files.

        present: name, size and time of change of each.
        """
        left, live, known = set(present), np.zeros(len(self), dtype=bool), set[tuple[str, int, int]]()
        at = 0
        for segment in self.segments:
            for source in segment.sources:
                if source.mark in left:
                    live[at : at + source.count] = True
                    left.remove(source.mark)
                    known.add(source.mark)
                at += source.count
        return live, known

    def tidy(self, live: NDArray[np.bool_]) -> bool:
        """Write segments that are small, many or mostly dead anew without dead rows. True where that changed row numbers.

        live: (N,), rows that are of use. A kill in between leaves rows twice, of which the later count.
        """
        starts = np.cumsum([0, *(segment.count for segment in self.segments)])
        parts = [live[start:end] for start, end in pairwise(starts)]
        worn = [n for n, part in enumerate(parts) if part.mean() < 0.5]
        small = [n for n, part in enumerate(parts) if len(part) < _SMALL]
        old = sorted({*worn, *(small if len(small) > _MANY else ())})
        if not old:
            return False
        kept = [(self.segments[n], np.flatnonzero(parts[n])) for n in old]
        for group in _grouped([each for each in kept if len(each[1])]):
            self._rewrite(group)
        for segment in [self.segments[n] for n in old]:
            self.segments.remove(segment)
            segment.path.unlink(missing_ok=True)
        return True

    def clear(self) -> None:
        """Remove all segments, and what was measured on them."""
        for segment in self.segments:
            segment.path.unlink(missing_ok=True)
        self.segments = []
        (self.folder / _MEASURE).unlink(missing_ok=True)

    def measured(self) -> Recall | None:
        """The recall that was measured, unless the index has grown by a tenth since or nothing was measured."""
        try:
            found = json.loads((self.folder / _MEASURE).read_text(encoding="utf-8"))
            recall = Recall(**found)
            return recall if recall.rows <= len(self) <= recall.rows * _GROWN else None
        except (OSError, ValueError, TypeError):
            return None

    def measure(self, words: Numbers, *, queries: int = 50) -> Recall:
        """Compare what the index finds with exact search, and remember it.

        words: (Q, P), vectors of phrases.   queries: how many of its own rows are asked for, each without itself. The least
        number of rescored rows is taken that is enough for both, or the largest.
        """
        index = self.index()
        own = index.sample(queries)
        pictures = index.recall(K, queries=own, itself=True, rescored=RESCORED)
        asked = index.recall(K, queries=words, rescored=RESCORED)
        place = next((n for n, both in enumerate(zip(pictures, asked, strict=True)) if min(both) >= ENOUGH), -1)
        recall = Recall(
            rows=len(self), rescored=RESCORED[place], pictures=pictures[place], words=asked[place],
            queries=len(own) + len(np.asarray(words)),
        )  # fmt: skip
        write_file(self.folder / _MEASURE, json.dumps(asdict(recall)) + "\n", overwrite=True)
        return recall

    def _fitting(self, segment: Segment) -> Segment:
        """The segment, if it is of this index. Raises DataError."""
        first = self.segments[0] if self.segments else segment
        if segment.width != first.width or not np.array_equal(segment.mean, first.mean):
            raise DataError(f"{segment.path} is of another index than {first.path}")
        if len(segment.records) != segment.count:
            raise DataError(f"{segment.path} says nothing of its pictures")
        return segment

    def _rewrite(self, group: Sequence[tuple[Segment, NDArray[np.intp]]]) -> None:
        """Add the rows of several segments as one. Sources whose rows are among them go with them."""
        rows = np.concatenate([segment.vectors[own] for segment, own in group])
        names = [segment.name(int(row)) for segment, own in group for row in own]
        records = np.concatenate([segment.records[own] for segment, own in group])
        sources = [source for segment, own in group for source in _sources_of(segment, own)]
        self.add(rows, names, records, sources)


def _sources_of(segment: Segment, rows: NDArray[np.intp]) -> list[Source]:
    """The sources of some rows, which are whole."""
    wanted, at, found = set(rows.tolist()), 0, []
    for source in segment.sources:
        if not source.count or at in wanted:
            found.append(source)
        at += source.count
    return found


def _grouped(
    kept: Sequence[tuple[Segment, NDArray[np.intp]]],
) -> list[list[tuple[Segment, NDArray[np.intp]]]]:
    """Rows of segments, put together in groups of no more than a segment holds."""
    groups: list[list[tuple[Segment, NDArray[np.intp]]]] = []
    total = ROWS
    for segment, rows in kept:
        if total + len(rows) > ROWS:
            groups.append([])
            total = 0
        groups[-1].append((segment, rows))
        total += len(rows)
    return groups


def seen_key(path: Path, state: FileState | None, now: float) -> int:
    """A number for a picture's file in a state: a hash of eight bytes, 0 for a file that is not there.

    now: seconds since 1970. Where the file may yet change unseen, the number is of this moment, and no later one is equal.
    """
    if state is None:
        return 0
    name = os.fsencode(os.path.abspath(path))  # noqa: PTH100 - normalised, links kept
    mark = repr((*state, None if state.settled(now) else now))
    return int.from_bytes(blake2b(name + mark.encode(), digest_size=8).digest(), "little")


def records_of(pictures: Sequence[Picture], seen: Iterable[int]) -> NDArray[Any]:
    """(N,) records of pictures. seen: N keys."""
    return np.array(
        [
            (key, each.width, each.height, each.share_seen, each.modified)
            for each, key in zip(pictures, seen, strict=True)
        ],
        dtype=RECORD,
    )
