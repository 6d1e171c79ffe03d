"""Files of an index: rows that were added together, whole or not at all, and mapped to be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipcond.errors import DataError, ShapeError
from clipcond.files import writing
from clipcond.find.codes import codes_of, words_of
from clipcond.score.checks import unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from clipcond.score.checks import Numbers

SUFFIX = ".segment"
_MAGIC = b"clipcond segment 2\n"
_HEADER = 1 << 20  # bytes at most
# Of a picture. seen: hash of its path and its file's state.   modified: seconds since 1970.
RECORD = np.dtype([("seen", "<u8"), ("width", "<u4"), ("height", "<u4"), ("share_seen", "<f4"), ("modified", "<f8")])


@dataclass(frozen=True, slots=True)
class Source:
    """A file that rows were read from, as it was then: its name, size and time of change; `count` rows of it."""

    name: str
    size: int
    modified_ns: int
    count: int

    @property
    def mark(self) -> tuple[str, int, int]:
        """The marks by which the file is still the same."""
        return self.name, self.size, self.modified_ns


class Segment:
    """Rows that were added together, mapped from the file.

    names: N.   codes: (N, W) uint64.   vectors: (N, P) float16.   records: (N,) of RECORD, or (0,) where none were given.
    sources: the files of the rows in order, where they come from such.
    Raises DataError for a file that is no segment, or cut.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                if file.read(len(_MAGIC)) != _MAGIC:
                    raise DataError(f"{path} is no segment of an index; delete it, and it is made again")
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(size, _HEADER)))
            parts = self._mapped(header, len(_MAGIC) + 8 + size)
            self.sources = tuple(Source(str(n), int(s), int(t), int(c)) for n, s, t, c in header["sources"])
            if self.sources and sum(source.count for source in self.sources) != self.count:
                raise ValueError("sources")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path} is damaged; delete it, and it is made again") from error
        self.mean: NDArray[np.float32] = parts["mean"]
        self.codes: NDArray[np.uint64] = parts["codes"]
        self.vectors: NDArray[np.float16] = parts["vectors"]
        self.records: NDArray[Any] = parts["records"]
        self._ends, self._names = parts["ends"], parts["names"]

    def _mapped(self, header: dict[str, Any], start: int) -> dict[str, Any]:
        """The arrays behind the header, which begin at byte `start`. Raises ValueError where the file is too short."""
        self.count, self.width = int(header["count"]), int(header["width"])
        recorded = self.count if header["records"] else 0
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            "mean": ("<f4", (self.width,)), "codes": ("<u8", (self.count, words_of(self.width))),
            "vectors": ("<f2", (self.count, self.width)), "records": (RECORD, (recorded,)),
            "ends": ("<u8", (self.count,)), "names": ("u1", (int(header["names"]),)),
        }  # fmt: skip
        parts = {}
        for name, (dtype, shape) in shapes.items():
            if name == "vectors":
                self._start = start
            parts[name] = np.memmap(self.path, dtype, "r", start, shape) if np.prod(shape) else np.zeros(shape, dtype)
            start += parts[name].nbytes
        return parts

    def rows(self, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """(n, P) vectors of some rows, read one by one: a map would bring their neighbours into memory.

        Raises DataError where the file is gone.
        """
        size = 2 * self.width
        try:
            with open(self.path, "rb", buffering=0) as file:
                stored = b"".join(file.read(size) for row in numbers if file.seek(self._start + int(row) * size) >= 0)
        except FileNotFoundError:
            raise DataError(f"{self.path} was put together with others meanwhile; search again") from None
        return np.frombuffer(stored, "<f2").reshape(len(numbers), self.width).astype(np.float32)

    def name(self, row: int) -> str:
        """The name of a row."""
        start = int(self._ends[row - 1]) if row else 0
        return bytes(self._names[start : int(self._ends[row])]).decode("utf-8", "surrogateescape")


def write_segment(
    path: Path,
    vectors: Numbers,
    names: Sequence[str],
    mean: NDArray[np.float32],
    *,
    records: NDArray[Any] | None = None,
    sources: Sequence[Source] = (),
) -> Segment:
    """Write rows as a segment, whole or not at all. vectors: (N, P), made unit length.   mean: (P,), of all segments.

    Raises ShapeError where names, records or widths differ, OutputExists where the file is there.
    """
    rows = unit_rows("vectors", vectors, len(mean))
    if len(names) != len(rows):
        raise ShapeError(f"names: there are {len(names)}; expected {len(rows)}, one for each vector")
    if records is not None and len(records) != len(rows):
        raise ShapeError(f"records: there are {len(records)}; expected {len(rows)}, one for each vector")
    spelt = [name.encode("utf-8", "surrogateescape") for name in names]
    ends = np.cumsum([len(name) for name in spelt], dtype="<u8")
    header = json.dumps({
        "count": len(rows), "width": rows.shape[1], "names": sum(map(len, spelt)), "records": records is not None,
        "sources": [[each.name, each.size, each.modified_ns, each.count] for each in sources],
    }).encode()  # fmt: skip
    header += b" " * (-(len(_MAGIC) + 8 + len(header)) % 8)  # so that what is mapped is aligned
    with writing(path, durable=True) as file:
        file.write(_MAGIC + len(header).to_bytes(8, "little") + header)
        file.write(np.ascontiguousarray(mean, dtype="<f4").tobytes())
        file.write(codes_of(rows, mean).astype("<u8").tobytes())
        file.write(rows.astype("<f2").tobytes())
        if records is not None:
            file.write(records.astype(RECORD).tobytes())
        file.write(ends.tobytes())
        file.write(b"".join(spelt))
    return Segment(path)


def centre(vectors: Numbers) -> NDArray[np.float32]:
    """The mean of unit rows, (P,) float32, about which codes are taken."""
    mean: NDArray[np.float32] = unit_rows("vectors", vectors).mean(axis=0).astype(np.float32)
    return mean
