"""All that the readers of dialects share: findings collected, numbers of weights, pieces of text, groups of brackets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isnan

from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Words

_EACH = 50  # findings of one code that are told one by one


class FindingCollector:
    """Collects findings; of a code that is found too often, the places after the fiftieth become one finding."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {}
        self._rest: dict[str, list[int]] = {}  # code -> [how many more, first start, last end]

    def add(self, code: str, message: str, start: int, end: int) -> None:
        """Note one finding about prompt[start:end]."""
        rest = self._rest.get(code)
        if rest is not None:
            rest[0] += 1
            if start < rest[1]:
                rest[1] = start
            if end > rest[2]:
                rest[2] = end
            return
        found = self._found.setdefault(code, [])
        if len(found) < _EACH:
            found.append(Finding(code, message, start, end))
        else:
            self._rest[code] = [1, start, end]

    def add_each(self, code: str, message: str, places: Sequence[int]) -> None:
        """Note the same finding about many single characters, in order."""
        for place in places[:_EACH]:
            self.add(code, message, place, place + 1)
        if rest := places[_EACH:]:
            self._rest[code] = [len(rest), rest[0], rest[-1] + 1]

    def extend(self, findings: Iterable[Finding]) -> None:
        """Note findings that were made elsewhere."""
        for one in findings:
            self.add(one.code, one.message, one.start, one.end)

    def in_order(self) -> tuple[Finding, ...]:
        """Return all findings in the order of their places."""
        found = [one for each in self._found.values() for one in each]
        for code, (count, start, end) in self._rest.items():
            found.append(Finding(code, f"and {count:,} more of the same", start, end))
        return tuple(sorted(found, key=lambda one: (one.start, one.end, one.code)))


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


Piece = tuple[int, int, int]  # prompt[start:end] is text that stands at `place`: (place, start, end)


def blanks_before(prompt: str, end: int, floor: int) -> int:
    """Return the start of the blanks directly before `end`, `floor` at least."""
    while end > floor and prompt[end - 1].isspace():
        end -= 1
    return end


def blanks_after(prompt: str, start: int, ceiling: int) -> int:
    """Return the end of the blanks at `start`, `ceiling` at most."""
    while start < ceiling and prompt[start].isspace():
        start += 1
    return start


def make_words(prompt: str, pieces: list[Piece], end: int, weight: float, group: int, *, joins: bool = False) -> Words:
    """Make Words of text pieces; `end` is the end of the last one in the prompt, marks of its own included."""
    if len(pieces) == 1:
        place, first, last = pieces[0]
        text, places = prompt[first:last], (*range(place, place + last - first), end)
    else:
        text = "".join([prompt[first:last] for _, first, last in pieces])
        found: list[int] = []
        for place, first, last in pieces:
            found.extend(range(place, place + last - first))
        places = (*found, end)
    start = pieces[0][0]
    return Words(text=text, weight=weight, start=start, end=end, places=places, group=group, joins=joins)


@dataclass(slots=True)
class TextBuffer:
    """The text since the last mark, and the pieces before it that belong to the same words."""

    pieces: list[Piece] = field(default_factory=list)
    since: int = 0  # text from here on has not been taken yet
    edge: int = 0  # a group's number is not looked for before this

    def take(self, end: int) -> None:
        """Take the text up to `end` as a piece."""
        if end > self.since:
            self.pieces.append((self.since, self.since, end))
            self.since = end

    def take_escaped(self, at: int) -> None:
        """Take the text up to the backslash at `at`, and the character behind it as text that stands there."""
        self.take(at)
        self.pieces.append((at, at + 1, at + 2))
        self.since = self.edge = at + 2

    def skip_to(self, at: int) -> None:
        """Go on at `at`, behind a mark."""
        self.since = self.edge = at

    def flush(self, end: int) -> list[Piece]:
        """Take the text up to `end` and return all pieces; none are left."""
        pieces = self.pieces
        if end > self.since:
            pieces.append((self.since, self.since, end))
            self.since = end
        if pieces:
            self.pieces = []
        return pieces


@dataclass(slots=True)
class BracketGroups:
    """Bracket groups by number. Node 0 is the prompt; a parent's number is smaller than its children's.

    A node's factor may become known only where it closes: `settle` works out the weights when everything is read.
    """

    parent: list[int]
    factor: list[float]  # of the parent's weight
    opened: list[int]  # the place of the bracket
    fixed: dict[int, float]  # node -> a weight that holds whatever is around it
    blamed: set[int]  # nodes whose own number was warned about
    weights: list[float]  # settled: the weight inside the node
    numbers: list[int]  # settled: the innermost closed group around, -1 outside of all

    def __init__(self) -> None:
        self.parent, self.factor, self.opened = [0], [1.0], [-1]
        self.fixed, self.blamed, self.weights, self.numbers = {}, set(), [], []

    def open(self, parent: int, place: int, factor: float) -> int:
        """Open a group at `place`; return its number."""
        self.parent.append(parent)
        self.factor.append(factor)
        self.opened.append(place)
        return len(self.parent) - 1

    def settle(self, unclosed: Iterable[int] = ()) -> None:
        """Work out weights and numbers. `unclosed` nodes weigh, but are no groups that could be kept whole."""
        loose, fixed, blamed = set(unclosed), self.fixed, self.blamed
        weights, numbers = [1.0], [-1]
        for node, parent in enumerate(islice(self.parent, 1, None), 1):
            weight = fixed[node] if node in fixed else weights[parent] * self.factor[node]
            weights.append(weight if -HEAVIEST <= weight <= HEAVIEST else bounded(weight))
            numbers.append(numbers[parent] if node in loose else node)
            if parent in blamed and node not in fixed:
                blamed.add(node)
        self.weights, self.numbers = weights, numbers
