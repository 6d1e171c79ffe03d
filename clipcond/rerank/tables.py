"""Tables of others: CSV, TSV and JSONL of a header and rows, read in full and checked, one line for what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from clipcond.errors import DataError
from clipcond.wording import first_line, visible

IMAGE_COLUMNS = ("image", "file", "path", "filename", "file_name", "picture", "name")
PROMPT_COLUMNS = ("prompt", "caption", "text", "title")
NEGATIVE_COLUMNS = ("negative_prompt", "negative")
_LARGEST = 1 << 28  # bytes
_SEPARATORS = (",", "\t", ";", "|")
Row = dict[str, str]


def read_table(path: Path) -> tuple[Row, ...]:
    """Read a table by its ending: `.jsonl` and `.ndjson` as an object a line, all else as CSV with a header.

    Values are text; those of JSON that are null are left out. Raises DataError, naming the line.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} has more than {_LARGEST >> 20} MiB; expected a table of pictures")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    rows = _json_rows(path, text) if path.suffix in (".jsonl", ".ndjson") else _csv_rows(path, text)
    if not rows:
        raise DataError(f"{path} holds no rows; expected a header and a row for each picture")
    return rows


def column_of(path: Path, rows: Sequence[Row], names: Sequence[str], what: str) -> str:
    """Return the column of these names that a table has, whatever its case. Raises DataError where it has none."""
    found = maybe_column_of(rows, names)
    if found is None:
        have = ", ".join(visible(name) for name in rows[0])
        raise DataError(f"{path} has no column for the {what} (it has {have}); name one {names[0]}")
    return found


def maybe_column_of(rows: Sequence[Row], names: Sequence[str]) -> str | None:
    """The column of these names that a table has, or None."""
    have = {name.casefold(): name for row in rows[:1] for name in row}
    return next((have[name] for name in names if name in have), None)


def read_lines(path: Path, what: str) -> tuple[str, ...]:
    """The lines of a text file that are not empty, each once. Raises DataError where there are none."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    lines = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not lines:
        raise DataError(f"{path} holds no {what}; expected one a line")
    return lines


def _csv_rows(path: Path, text: str) -> tuple[Row, ...]:
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=False)
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {first_line(error)}") from error
    if not lines:
        return ()
    names = [name.strip() for name in lines[0]]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path} names the column {visible(twice)!r} twice")
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise DataError(
                f"{path}, row {number}: {len(line)} values for {len(names)} columns; quote what holds a comma"
            )
    return tuple(dict(zip(names, map(str.strip, line), strict=True)) for line in lines[1:])


def _json_rows(path: Path, text: str) -> tuple[Row, ...]:
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: no JSON ({first_line(error)})") from error
        if not isinstance(found, dict):
            raise DataError(f'{path}, line {number}: expected an object, such as {{"image": "a.png"}}')
        rows.append({str(name): value if isinstance(value, str) else json.dumps(value)
                     for name, value in found.items() if value is not None})  # fmt: skip
    return tuple(rows)
