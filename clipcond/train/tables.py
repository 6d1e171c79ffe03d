"""Rows of CSV, TSV, JSONL and Parquet files."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from clipcond.errors import DataError
from clipcond.images.suffixes import PICTURES
from clipcond.train.rows import (
    CAPTION_COLUMNS,
    GROUP_COLUMNS,
    IMAGE_COLUMNS,
    NEGATIVE_COLUMNS,
    NEGATIVE_IMAGE_COLUMNS,
    SECOND_COLUMNS,
    PairRow,
    captions_of,
    image_of,
    optional_of,
    pair_row,
)
from clipcond.wording import first_line, visible

TABLES = (".csv", ".tsv", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet",)
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_SEPARATORS = tuple(_NAMES)
_LONGEST_LINE = 1 << 24  # bytes
_OPTIONAL = {
    "negatives": NEGATIVE_COLUMNS, "negative_images": NEGATIVE_IMAGE_COLUMNS, "groups": GROUP_COLUMNS,
    "seconds": SECOND_COLUMNS,
}  # fmt: skip
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def table_rows(path: Path, separator: str | None = None) -> Iterator[PairRow | DataError]:
    """Yield the rows of a table of the kind that its ending names, and errors in place of rows that will not do.

    separator: of a CSV's columns; left out, it is the one that makes the header hold an image and a caption column.
    Raises DataError for a file of another kind, or one that cannot be read on.
    """
    if path.suffix in JSON_LINES:
        return _json_rows(path)
    if path.suffix in PARQUET:
        return _parquet_rows(path)
    if path.suffix in TABLES:
        return _csv_rows(path, separator)
    ending = path.suffix or "nothing"
    raise DataError(f"{path} ends in {ending!r}, expected .csv, .tsv, .jsonl, .parquet, .tar or .tar.gz")


def table_outline(path: Path, separator: str | None = None) -> str | None:
    """Say what a table was read as: its kind, and of a CSV the separator and the columns; None for what is no table.

    Raises DataError where its header does not name the columns.
    """
    if path.suffix in JSON_LINES:
        return "JSON lines"
    if path.suffix in PARQUET:
        return "Parquet"
    if path.suffix not in TABLES:
        return None
    line = next(_lines(path), "")
    header = _header(line, path, separator)
    names = [name.strip() for name in _columns(line, header.separator)]
    chosen = {"images": header.image, "captions": header.caption, **header.optional}
    columns = ", ".join(f"{what.replace('_', ' ')} in {visible(names[at])!r}" for what, at in chosen.items())
    return f"a table separated by {_NAMES.get(header.separator, repr(header.separator))}, {columns}"


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 file with their ends; a byte that is not UTF-8 comes as a lone surrogate."""
    try:
        with path.open("rb") as file:
            start = file.read(1024)
            if start.startswith(_WIDE) or b"\0" in start:
                raise DataError(f"{path}, line 1: this is UTF-16 or no text at all; save the file as UTF-8")
            file.seek(len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0)
            number = 0
            while line := file.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise DataError(f"{path}, line {number}: longer than {_LONGEST_LINE >> 20} MiB")
                yield line.decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


# ── CSV and TSV ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    """The columns of a table: how many, and which hold the image, the caption, and what is optional, by its name."""

    separator: str
    columns: int
    image: int
    caption: int
    optional: dict[str, int]

    def is_row(self, line: str) -> bool:
        """True if a line by itself is a whole row that names a picture."""
        fields = _columns(line, self.separator)
        return len(fields) == self.columns and Path(fields[self.image].strip()).suffix.lower() in PICTURES


def _header(line: str, path: Path, separator: str | None) -> _Header:
    """Find the columns of a table. Raises DataError where the first line does not name them."""
    if separator is not None and (len(separator) != 1 or separator in '\r\n"'):
        raise DataError(f"the separator is {separator!r}, expected one character")
    for candidate in (separator,) if separator else _SEPARATORS:
        names = [name.strip().lower() for name in _columns(line, candidate)]
        image, caption = _column(names, IMAGE_COLUMNS), _column(names, CAPTION_COLUMNS)
        if image is not None and caption is not None:
            optional = {name: _column(names, wanted) for name, wanted in _OPTIONAL.items()}
            return _Header(
                separator=candidate, columns=len(names), image=image, caption=caption,
                optional={name: column for name, column in optional.items() if column is not None},
            )  # fmt: skip
    shown = visible(line.strip()[:200])
    raise DataError(
        f"{path} has the header {shown!r}; expected a column of {', '.join(IMAGE_COLUMNS)} "
        f"and one of {', '.join(CAPTION_COLUMNS)}"
    )


def _columns(line: str, separator: str) -> list[str]:
    """Split a line by itself; no columns where it cannot be one row."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _column(names: list[str], wanted: tuple[str, ...]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _csv_rows(path: Path, separator: str | None) -> Iterator[PairRow | DataError]:
    lines = _lines(path)
    header = _header(next(lines, ""), path, separator)
    for number, fields in _fields(lines, header.separator, path):
        where = f"{path}, line {number}"
        if len(fields) <= max(header.image, header.caption):
            yield DataError(f"{where}: {len(fields)} columns, the header has more")
        elif any(extra.strip() for extra in fields[header.columns :]):
            yield DataError(
                f"{where}: {len(fields)} columns, the header has {header.columns}; "
                f"put a caption that holds {header.separator!r} in quotes"
            )
        elif swallowed := _swallowed(fields[header.caption], header):
            raise DataError(f"{where}: a quote that is never closed swallows line {number + swallowed}")
        else:
            # a row may end before an optional column
            optional = {name: tuple(fields[column : column + 1]) for name, column in header.optional.items()}
            yield pair_row(where, fields[header.image].strip(), (fields[header.caption],), **optional)


def _fields(lines: Iterable[str], separator: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, with the number of the line on which each starts."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    while True:
        number = reader.line_num + 2  # the header's line is read before
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            limit = csv.field_size_limit()
            reason = f"a field of more than {limit:,} characters" if "field limit" in str(error) else first_line(error)
            raise DataError(f"{path}, line {number}: {reason}; is a quote left open or not doubled?") from error
        if fields:
            yield number, fields


def _swallowed(caption: str, header: _Header) -> int:
    """Return the number of lines below its first at which a caption holds a row of the table; 0 if it holds none."""
    if "\n" not in caption:
        return 0
    return next((below for below, line in enumerate(caption.split("\n")[1:], 1) if header.is_row(line)), 0)


# ── JSONL and Parquet ────────────────────────────────────────────────────────────────────────────────────────────────


def _json_rows(path: Path) -> Iterator[PairRow | DataError]:
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                record = parsed_json(line, where)
            except DataError as error:
                yield error
            else:
                yield _record_row(record, where)


def parsed_json(text: str, where: str) -> object:
    """Return the value of a JSON text. Raises DataError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({first_line(error)})") from error
    except RecursionError:
        raise DataError(f"{where}: JSON that is nested too deeply") from None


def _parquet_rows(path: Path) -> Iterator[PairRow | DataError]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise DataError(
            f"{path}: Parquet needs pyarrow, which is not installed; pip install pyarrow, or save it as CSV or JSONL"
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            lower = [name.lower() for name in names]
            image, caption = _column(lower, IMAGE_COLUMNS), _column(lower, CAPTION_COLUMNS)
            if image is None or caption is None:
                raise DataError(
                    f"{path} has the columns {', '.join(names)}; expected one of {', '.join(IMAGE_COLUMNS)} "
                    f"and one of {', '.join(CAPTION_COLUMNS)}"
                )
            more = [_column(lower, wanted) for wanted in _OPTIONAL.values()]
            wanted = [names[at] for at in (image, caption, *more) if at is not None]
            for batch in file.iter_batches(columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield _record_row(record, f"{path}, row {number}")
    except DataError:
        raise
    except Exception as error:  # pyarrow's kinds of error are many
        raise DataError(f"{path} cannot be read as Parquet: {first_line(error)}") from error


def _record_row(record: object, where: str) -> PairRow | DataError:
    try:
        return pair_row(where, image_of(record, where), captions_of(record, where), **optional_of(record, where))
    except DataError as error:
        return error
