"""Weights as prompts write them: numbers of each dialect, finite, and the findings about doubtful ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isnan

from clipcond.prompt.dialects.collector import FindingCollector

BARE = 1.1  # the factor of one pair of round brackets
HEAVIEST = 1e4  # weights stay within ±HEAVIEST, so that products of any depth stay finite
SANE = (0.0, 2.0)  # a weight outside earns a warning
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*")  # no two parts can match the same character
_NUMBER_LIKE = re.compile(r"\s*[+-]?[0-9.][0-9.,eE%+-]*\s*")


def bounded(weight: float) -> float:
    """Return the weight, within ±HEAVIEST."""
    return min(max(weight, -HEAVIEST), HEAVIEST)


def decimal(text: str) -> float | None:
    """Return the decimal number that the whole text is, blanks around it allowed; None if it is none."""
    match = _NUMBER.fullmatch(text)
    return None if match is None else bounded(float(match[1]))


def python_float(text: str) -> float | None:
    """Return the number that Python's `float` reads in the text; None if it is none, or not a number at all."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if isnan(value) else bounded(value)


def group_number(
    prompt: str,
    start: int,
    end: int,
    findings: FindingCollector,
    read: Callable[[str], float | None] = decimal,
) -> tuple[float, int] | None:
    """Return the weight that prompt[start:end], the text directly before a `)`, ends with, and the place of its colon.

    None where there is none; a finding tells of text that was meant as a weight, or of a weight that may not have been.
    """
    colon = prompt.rfind(":", start, end)
    if colon < 0:
        return None
    typed = prompt[colon + 1 : end]
    value = read(typed)
    if value is None:
        if _NUMBER_LIKE.fullmatch(typed):
            _note_bad_number(typed.strip(), colon, end, findings)
        return None
    if not _note_ratio(prompt, start, colon, end, findings) and not SANE[0] <= value <= SANE[1]:
        message = f"a weight of {value:g} is outside of {SANE[0]:g} to {SANE[1]:g}"
        findings.add("weight-out-of-range", message, colon, end)
    return value, colon


def _note_bad_number(typed: str, colon: int, end: int, findings: FindingCollector) -> None:
    meant = typed.replace(",", ".")
    advice = f"write {meant}" if "," in typed and decimal(meant) is not None else "the brackets weigh 1.1"
    quoted = typed if len(typed) <= 20 else typed[:20] + "…"
    findings.add("bad-weight", f"{quoted} is no number and stays text; {advice}", colon, end)


def _note_ratio(prompt: str, start: int, colon: int, end: int, findings: FindingCollector) -> bool:
    """Note a `16:9` that was read as a weight of 9; True if there is one."""
    typed = prompt[colon + 1 : end].strip()
    first = colon
    while first > start and "0" <= prompt[first - 1] <= "9":
        first -= 1
    before = prompt[first - 1] if first > start else " "
    if first == colon or not typed.isdecimal() or before in ":." or before.isalpha():
        return False
    shown = f"{prompt[first:colon]}:{typed}" if colon - first + len(typed) < 20 else "this"
    message = f"{shown} is read as a weight of {typed[:20]}; for the ratio escape the brackets or end with :1"
    findings.add("weight-from-ratio", message, first, end)
    return True
