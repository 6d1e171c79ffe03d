"""The right label of each picture, from the folder that it lies in or from a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipcond.errors import DataError
from clipcond.find.labels import LABEL_COLUMNS
from clipcond.rerank.tables import IMAGE_COLUMNS, column_of, read_table
from clipcond.wording import visible

FOLDERS = "folders"  # the word for: the name of each picture's folder is its label


def labels_by_folder(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the name of the folder of each picture."""
    return {path: path.absolute().parent.name for path in paths}


def read_truth(table: Path) -> dict[str, str]:
    """Return label by picture, as a table names them: a column image (relative to the table) and a column label.

    Raises DataError for another table, and for a picture with two labels.
    """
    rows = read_table(table)
    image = column_of(table, rows, IMAGE_COLUMNS, "picture")
    label = column_of(table, rows, LABEL_COLUMNS, "label")
    found: dict[str, str] = {}
    for row in rows:
        key = _key(table.parent / row.get(image, ""))
        if found.setdefault(key, row.get(label, "").strip()) != row.get(label, "").strip():
            raise DataError(f"{table}: {visible(row.get(image, ''))} has two labels")
    return found


def labelled_pictures(table: Path) -> dict[Path, str]:
    """Return the label of each picture of a table, under the path that leads there from here. Raises DataError."""
    rows = read_table(table)
    image = column_of(table, rows, IMAGE_COLUMNS, "picture")
    label = column_of(table, rows, LABEL_COLUMNS, "label")
    return {table.parent / row.get(image, ""): row.get(label, "").strip() for row in rows}


def truth_of(paths: Sequence[Path], table: dict[str, str]) -> dict[Path, str]:
    """Return the label of each picture that the table names."""
    return {path: table[key] for path in paths if (key := _key(path)) in table}


def numbered(paths: Sequence[Path], truth: dict[Path, str], names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the rows of pictures with a known label, and the number of each one's label.

    Raises DataError where a label is none of `names`, and where no picture has one.
    """
    place = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(truth.values()) - set(place))
    if unknown:
        raise DataError(
            f"{len(unknown)} of the right labels are not among the labels ({visible(unknown[0])!r}, for instance); name them too"
        )
    rows = [row for row, path in enumerate(paths) if path in truth]
    if not rows:
        raise DataError("no picture has a right label; expected its folder or a row of the table to say it")
    return rows, [place[truth[paths[row]]] for row in rows]


def _key(path: Path) -> str:
    return str(path.absolute().resolve())
