"""Numbers that another scorer made, from a table: a column for the picture, the others numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from clipcond.errors import DataError
from clipcond.rerank.picture_names import PictureNames
from clipcond.rerank.tables import IMAGE_COLUMNS, column_of, read_table
from clipcond.wording import visible


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalScores:
    """Columns of numbers by a picture's name in the table. rows: (name, numbers in the order of the columns)."""

    source: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]

    def of(self, paths: Iterable[Path]) -> dict[Path, tuple[float, ...]]:
        """The numbers of each picture that the table names; of several rows the last."""
        names = PictureNames(paths)
        found = ((names.find(name, self.source), numbers) for name, numbers in self.rows)
        return {path: numbers for path, numbers in found if path is not None}


def read_external_scores(path: Path) -> ExternalScores:
    """Read a table of scores. Columns that hold anything but numbers are left out.

    Raises DataError for a table without a picture column or without a column of finite numbers.
    """
    table = read_table(path)
    image = column_of(path, table, IMAGE_COLUMNS, "picture")
    columns = tuple(
        name for name in table[0] if name != image and all(_number(row.get(name)) is not None for row in table)
    )
    if not columns:
        others = ", ".join(visible(name) for name in table[0] if name != image) or "no other column"
        raise DataError(f"{path} has no column of finite numbers in every row (beside {visible(image)}: {others})")
    rows = tuple((row[image], tuple(_number(row[name]) or 0.0 for name in columns)) for row in table if image in row)
    return ExternalScores(source=path, columns=columns, rows=rows)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
