"""The nine cells of a picture by name, and the cell that a point lies in."""

from __future__ import annotations

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
CELLS = tuple(
    "center" if (row, column) == ("middle", "center") else f"{row} {column}" for row in ROWS for column in COLUMNS
)


def cell_at(x: float, y: float) -> str:
    """The cell of a point; x and y are shares of the picture's width and height, from 0 to 1."""
    row, column = (min(2, max(0, int(3 * share))) for share in (y, x))
    return CELLS[3 * row + column]
