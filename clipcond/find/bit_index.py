"""A large gallery on disk: centred one-bit codes that are compared in memory, and half-precision vectors that decide.

CLIP's vectors share a long mean (0.87 for natural pictures), so the sign of a number says little and the sign of its
difference from the mean nearly all. A query's code is compared with all codes by counting the bits that differ, and the
nearest are compared again by their cosine. There is nothing to train; rows are added in segments, each a file that
appears whole or not at all, so that a kill loses no more than the segment that was being written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.errors import DataError, ShapeError
from clipcond.files import writing
from clipcond.score.checks import at_least_one, matrix, unit_rows, vector
from clipcond.score.zero_shot import Best, nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

RESCORED = 1000  # rows whose cosine is computed, of those whose codes are nearest
SUFFIX = ".segment"
_MAGIC = b"clipcond segment 1\n"
_ROWS_AT_ONCE = 1 << 15  # whose codes fit a processor's cache
_SAMPLE = 100  # rows that serve as queries to measure recall


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A row of the gallery: its name and its cosine with the query."""

    name: str
    cosine: float


class Segment:
    """Rows that were added together: N names, codes (N, W) uint64 and vectors (N, P) float16, mapped from the file.

    Raises DataError for a file that is no segment, or cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise DataError(f"{path} is no segment of an index; delete it, and it is made again")
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, 1 << 20)))
            start = len(_MAGIC) + 8 + size
            self.count, self.width = int(header["count"]), int(header["width"])
            words = words_of(self.width)
            shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
                "mean": ("<f4", (self.width,)), "codes": ("<u8", (self.count, words)),
                "vectors": ("<f2", (self.count, self.width)), "ends": ("<u8", (self.count,)),
                "names": ("u1", (int(header["names"]),)),
            }  # fmt: skip
            parts = {}
            for name, (dtype, shape) in shapes.items():
                if name == "vectors":
                    self._start = start
                parts[name] = _mapped(path, np.dtype(dtype), start, shape)
                start += parts[name].nbytes
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is damaged; delete it, and it is made again") from error
        self.mean: NDArray[np.float32] = parts["mean"]
        self.codes: NDArray[np.uint64] = parts["codes"]
        self.vectors: NDArray[np.float16] = parts["vectors"]
        self._ends, self._names = parts["ends"], parts["names"]

    def rows(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, P) vectors of some rows, read one by one: a map would bring their neighbours into memory."""
        size = 2 * self.width
        with open(self.path, "rb", buffering=0) as file:
            stored = b"".join(file.read(size) for row in numbers if file.seek(self._start + int(row) * size) >= 0)
        return np.frombuffer(stored, "<f2").reshape(len(numbers), self.width).astype(np.float32)

    def name(self, row: int) -> str:
        """The name of a row."""
        start = int(self._ends[row - 1]) if row else 0
        return bytes(self._names[start : int(self._ends[row])]).decode("utf-8", "surrogateescape")


def write_segment(path: Path, vectors: Numbers, names: Sequence[str], mean: NDArray[np.float32]) -> Segment:
    """Write rows as a segment, whole or not at all. vectors: (N, P), made unit length.   mean: (P,), of all segments.

    Raises ShapeError where names or widths differ, OutputExists where the file is there.
    """
    rows = unit_rows("vectors", vectors, len(mean))
    if len(names) != len(rows):
        raise ShapeError(f"names: there are {len(names)}; expected {len(rows)}, one for each vector")
    spelt = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in spelt], dtype="<u8")
    header = json.dumps({"count": len(rows), "width": rows.shape[1], "names": sum(map(len, spelt))}).encode()
    header += b" " * (-(len(_MAGIC) + 8 + len(header)) % 8)  # so that what is mapped is aligned
    with writing(path, durable=True) as file:
        file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
        file.write(np.ascontiguousarray(mean, dtype="<f4").tobytes())
        file.write(codes_of(rows, mean).astype("<u8").tobytes())
        file.write(rows.astype("<f2").tobytes())
        file.write(ends.tobytes())
        file.write(b"".join(spelt))
    return Segment(path)


def centre(vectors: Numbers) -> NDArray[np.float32]:
    """The mean of unit rows, (P,) float32, about which codes are taken."""
    mean: NDArray[np.float32] = unit_rows("vectors", vectors).mean(axis=0).astype(np.float32)
    return mean


def words_of(width: int) -> int:
    """Words of 64 bits in the code of a vector."""
    return -(-width // 64)


def codes_of(rows: NDArray[np.floating[Any]], mean: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(N, P) rows as (N, W) uint64: a bit for each number, set where it is above the mean's; the last word is filled with 0."""
    bits = np.packbits(rows > mean, axis=1, bitorder="little")
    padded = np.zeros((len(rows), 8 * words_of(rows.shape[1])), dtype=np.uint8)
    padded[:, : bits.shape[1]] = bits
    return padded.view("<u8")


class BitIndex:
    """The segments of a gallery, searched together. They must be of one width and one mean.

    Raises DataError where they are not.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        if not self.segments:
            raise DataError("the index holds no segment; add vectors first")
        first = self.segments[0]
        for segment in self.segments[1:]:
            if segment.width != first.width or not np.array_equal(segment.mean, first.mean):
                raise DataError(f"{segment.path} belongs to another index than {first.path}")
        self.mean, self.width = np.asarray(first.mean), first.width
        self._starts = np.cumsum([0, *(segment.count for segment in self.segments)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def search(self, query: Numbers, k: int, *, rescored: int = RESCORED) -> list[Hit]:
        """The k rows that are nearest a query, (P,), by cosine, out of the `rescored` whose codes are nearest."""
        return self._hits(self._approximate(vector("query", query, self.width), k, rescored))

    def search_exact(self, query: Numbers, k: int) -> list[Hit]:
        """The k rows with the highest cosine to a query, (P,). Every vector is read."""
        asked = vector("query", query, self.width)[None]
        return self._hits(self._exact(asked, k)[0])

    def recall(
        self, k: int = 10, *, queries: Numbers | None = None, rescored: Sequence[int] = (RESCORED,), seed: int = 0
    ) -> tuple[float, ...]:
        """The shares of the k truly nearest that `search` finds with each number of `rescored` rows, means over queries.

        queries: (Q, P); left out, a hundred rows of the gallery itself, each without the row that it is.
        """
        at_least_one("k", k)
        if queries is not None:
            asked, skip = matrix("queries", queries, self.width), 0
        else:
            rows = np.random.default_rng(seed).choice(len(self), size=min(_SAMPLE, len(self)), replace=False)
            asked, skip = self._vectors(np.sort(rows)).astype(np.float64), 1
        found, total = np.zeros(len(rescored)), 0
        for query, truth in zip(asked, self._exact(asked, k + skip), strict=True):
            right = {row for row, _ in truth[skip:]}
            total += len(right)
            for place, count in enumerate(rescored):
                found[place] += len(right & {row for row, _ in self._approximate(query, k + skip, count)[skip:]})
        return tuple(float(share) for share in found / max(1, total))

    def _vectors(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, P) vectors of ascending rows."""
        of = np.searchsorted(self._starts, rows, side="right") - 1
        found = [self.segments[n].rows(rows[of == n] - self._starts[n]) for n in np.unique(of)]
        return np.concatenate(found)

    def _hits(self, rows: Sequence[tuple[int, float]]) -> list[Hit]:
        hits = []
        for row, cosine in rows:
            number = int(np.searchsorted(self._starts, row, side="right")) - 1
            hits.append(Hit(name=self.segments[number].name(row - int(self._starts[number])), cosine=cosine))
        return hits

    def _approximate(self, query: NDArray[np.float64], k: int, rescored: int) -> list[tuple[int, float]]:
        """Rows and cosines of the k best among those whose codes differ least."""
        most = max(k, at_least_one("rescored", rescored))
        unit = unit_rows("query", query[None])[0]
        code = codes_of(unit[None].astype(np.float32), self.mean)[0]
        rows = _nearest_codes(self._blocks(), code, len(self), most)
        best = nearest(unit[None], self._vectors(rows), k)
        return [(int(rows[c]), float(s)) for c, s in zip(best.columns[0], best.scores[0], strict=True)]

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        for start, segment in zip(self._starts[:-1], self.segments, strict=True):
            for at in range(0, segment.count, _ROWS_AT_ONCE):
                yield int(start) + at, segment.codes[at : at + _ROWS_AT_ONCE]

    def _exact(self, queries: NDArray[np.float64], k: int) -> list[list[tuple[int, float]]]:
        """Rows and cosines of the k best of each query, segment after segment."""
        found: list[list[tuple[int, float]]] = [[] for _ in queries]
        for start, segment in zip(self._starts[:-1], self.segments, strict=True):
            best: Best = nearest(queries, segment.vectors, k)
            for mine, columns, scores in zip(found, best.columns, best.scores, strict=True):
                mine += [(int(start) + int(c), float(s)) for c, s in zip(columns, scores, strict=True)]
        return [sorted(mine, key=lambda each: (-each[1], each[0]))[:k] for mine in found]


def _nearest_codes(
    blocks: Iterator[tuple[int, NDArray[np.uint64]]], code: NDArray[np.uint64], count: int, most: int
) -> NDArray[np.intp]:
    """The rows whose codes differ from `code` in the fewest bits, `most` of them or all; of equals the first rows."""
    distances = np.empty(count, dtype=np.uint16)

    def compare(block: tuple[int, NDArray[np.uint64]]) -> None:
        start, codes = block
        total = np.zeros(len(codes), dtype=np.uint16)
        for word in range(codes.shape[1]):
            total += np.bitwise_count(codes[:, word] ^ code[word])
        distances[start : start + len(codes)] = total

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in pool.map(compare, blocks):
            pass
    if most >= count:
        return np.arange(count)
    limit = int(np.searchsorted(np.cumsum(np.bincount(distances)), most))  # the distance that the last of them has
    nearer, at = np.flatnonzero(distances < limit), np.flatnonzero(distances == limit)
    return np.sort(np.concatenate([nearer, at[: most - len(nearer)]]))


def _mapped(path: Path, dtype: np.dtype[Any], start: int, shape: tuple[int, ...]) -> Any:
    """An array of a file, mapped; raises ValueError where the file is too short."""
    if not np.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start, shape)
