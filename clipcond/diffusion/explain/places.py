"""Places in a picture in words, from maps and from prompts. Pure arithmetic and text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from clipcond.images.places import CELLS, COLUMNS, ROWS

_ONE, _LINE, _QUARTER = 0.45, 0.7, 0.8  # shares that make a map one cell's, one row's or column's, or four cells'
_WORDS = {
    "top": ("top", "upper"), "middle": ("middle",), "bottom": ("bottom", "lower"),
    "left": ("left",), "center": ("center", "centre"), "right": ("right",),
}  # fmt: skip
_NAMES = {word: name for name, several in _WORDS.items() for word in several}
_PAIR = re.compile(r"\b(top|upper|middle|bottom|lower)[ -](left|center|centre|right)\b", re.IGNORECASE)
_SINGLE = re.compile(
    r"\b(?:in|on|at|to) the (?:very |far )?(top|upper|bottom|lower|left|right|center|centre|middle)\b(?! of)(?!-| \w+ side)",
    re.IGNORECASE,
)


def place_of(shares: Sequence[Sequence[float]]) -> str:
    """Say where a map acts: a cell, a row or column of cells, two cells, a corner of four, or everywhere.

    shares: (3, 3), what each cell holds of the map without its floor, together 1.
    """
    flat = [each for row in shares for each in row]
    best = max(range(9), key=flat.__getitem__)
    if flat[best] >= _ONE:
        return CELLS[best]
    lines = [(sum(row), name) for row, name in zip(shares, ROWS, strict=True)]
    lines += [(sum(row[n] for row in shares), name) for n, name in enumerate(COLUMNS)]
    most, name = max(lines)
    if most >= _LINE:
        return {"middle": "middle row", "center": "middle column"}.get(name, name)
    second = max((n for n in range(9) if n != best), key=flat.__getitem__)
    if flat[best] + flat[second] >= _LINE:
        return f"{CELLS[best]} and {CELLS[second]}"
    corners = [
        (sum(sum(row[x : x + 2]) for row in shares[y : y + 2]), f"{ROWS[2 * y]} {COLUMNS[2 * x]}")
        for y in (0, 1)
        for x in (0, 1)
    ]
    most, name = max(corners)
    return f"toward the {name}" if most >= _QUARTER else "everywhere"


def strongest_cell(shares: Sequence[Sequence[float]]) -> str:
    """The cell that holds the most of a map."""
    flat = [each for row in shares for each in row]
    return CELLS[max(range(9), key=flat.__getitem__)]


def named_cells(text: str) -> frozenset[str] | None:
    """The cells that a phrase names ("at the top left", "on the right"); None where it names none or several places."""
    pairs = {(_NAMES[row.lower()], _NAMES[column.lower()]) for row, column in _PAIR.findall(text)}
    if len(pairs) > 1:
        return None
    if pairs:
        row, column = next(iter(pairs))
        return frozenset({"center" if (row, column) == ("middle", "center") else f"{row} {column}"})
    singles = {_NAMES[word.lower()] for word in _SINGLE.findall(text)}
    if len(singles) != 1:
        return None
    (name,) = singles
    if name in ("center", "middle"):
        return frozenset({"center"})
    at = [cell for number, cell in enumerate(CELLS) if name in (ROWS[number // 3], COLUMNS[number % 3])]
    return frozenset(at)
