"""The small language of searches: `2:cat + red scarf - night`, texts and files with weights.

`+` and `-` join terms where blanks stand on both sides, so `black-and-white` and `C++ book` are plain words. A term may
begin with a weight and a colon (`16:9 screen`, with a digit behind it, does not); a minus may begin the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clipcond.score.expression import ExpressionError

_SIGN = re.compile(r"(?:^|\s)(?P<sign>[+-])(?=\s)")
_WEIGHT = re.compile(r"(?P<weight>\d+\.?\d*|\.\d+):(?!\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTerm:
    """A text or file name with its weight, below 0 for what is not wanted; source[start:end] is the text."""

    text: str
    weight: float
    start: int
    end: int


def parse_query(source: str) -> tuple[QueryTerm, ...]:
    """The terms of a query in their order. Raises ExpressionError for an empty term and for a weight of 0 or infinity."""
    terms = []
    start, sign = 0, 1.0
    for match in _SIGN.finditer(source):
        if not source[: match.start("sign")].strip():
            if match["sign"] == "-":
                start, sign = match.end("sign"), -1.0
                continue
            raise ExpressionError("there is no text before +", source, match.start("sign"), match.end("sign"))
        terms.append(_term(source, start, match.start("sign"), sign))
        start, sign = match.end("sign"), 1.0 if match["sign"] == "+" else -1.0
    return (*terms, _term(source, start, len(source), sign))


def _term(source: str, start: int, end: int, sign: float) -> QueryTerm:
    inside = source[start:end]
    first = start + len(inside) - len(inside.lstrip())
    last = max(first, start + len(inside.rstrip()))
    found = _WEIGHT.match(source, first, last)
    weight = float(found["weight"]) if found else 1.0
    if found:
        blank = source[found.end() : last]
        text_start = found.end() + len(blank) - len(blank.lstrip())
    else:
        text_start = first
    if text_start >= last:
        raise ExpressionError("a text is missing here", source, first, max(last, first))
    if not 0 < weight < float("inf"):
        raise ExpressionError(f"the weight is {weight:g}; expected more than 0", source, first, text_start)
    return QueryTerm(text=source[text_start:last], weight=sign * weight, start=text_start, end=last)
