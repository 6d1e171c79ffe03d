"""What the dialects share: finite weights, bracket groups, text that remembers its places, a bounded list of findings."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from clipcond.prompt.findings import Finding
from clipcond.prompt.items import Words

BARE = 1.1  # what one pair of round brackets does
HEAVIEST = 1e4  # weights stay within ±HEAVIEST, so that products of any depth stay finite
SANE = (0.0, 2.0)  # a weight outside earns a warning
_EACH = 50  # findings of one code that are told one by one
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*")  # no two parts can match the same character
_NUMBER_LIKE = re.compile(r"\s*[+-]?[0-9.][0-9.,eE%+-]*\s*")

Piece = tuple[int, int, int]  # prompt[start:end] is text that stands at `place`: (place, start, end)


def bounded(weight: float) -> float:
    """The weight, within ±HEAVIEST."""
    return min(max(weight, -HEAVIEST), HEAVIEST)


def number(text: str) -> float | None:
    """The decimal number that the whole text is, blanks around it allowed; None if it is none."""
    match = _NUMBER.fullmatch(text)
    return None if match is None else bounded(float(match[1]))


def blanks_before(prompt: str, end: int, floor: int) -> int:
    """Where the blanks start that stand directly before `end`, but not before `floor`."""
    while end > floor and prompt[end - 1].isspace():
        end -= 1
    return end


def blanks_after(prompt: str, start: int, ceiling: int) -> int:
    """Where the blanks end that stand at `start`, at most at `ceiling`."""
    while start < ceiling and prompt[start].isspace():
        start += 1
    return start


class Notes:
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

    def add_each(self, code: str, message: str, places: list[int]) -> None:
        """Note the same finding about many single characters, in order."""
        for place in places[:_EACH]:
            self.add(code, message, place, place + 1)
        if rest := places[_EACH:]:
            self._rest[code] = [len(rest), rest[0], rest[-1] + 1]

    def extend(self, found: Iterable[Finding]) -> None:
        """Note findings that were made elsewhere."""
        for one in found:
            self.add(one.code, one.message, one.start, one.end)

    def told(self) -> tuple[Finding, ...]:
        """All findings, in the order of their places."""
        found = [one for each in self._found.values() for one in each]
        for code, (count, start, end) in self._rest.items():
            found.append(Finding(code, f"and {count:,} more of the same", start, end))
        return tuple(sorted(found, key=lambda one: (one.start, one.end, one.code)))


@dataclass(slots=True)
class Groups:
    """The tree of bracket groups. Node 0 is the prompt; a parent's number is smaller than its children's.

    A node's factor may become known only where it closes: `settle` works out the weights when everything is read.
    """

    parent: list[int]
    factor: list[float]  # of the parent's weight
    opened: list[int]  # where the bracket stands
    fixed: dict[int, float]  # node -> a weight that holds whatever is around it
    blamed: set[int]  # nodes whose own number was warned about
    weights: list[float]  # settled: the weight inside the node
    numbers: list[int]  # settled: the innermost closed group around, -1 outside of all

    def __init__(self) -> None:
        self.parent, self.factor, self.opened = [0], [1.0], [-1]
        self.fixed, self.blamed, self.weights, self.numbers = {}, set(), [], []

    def open(self, parent: int, place: int, factor: float) -> int:
        """The number of a new group that opens at `place`."""
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


def words(prompt: str, pieces: list[Piece], end: int, weight: float, group: int) -> Words:
    """The Words of text pieces; `end` is where the last of them ends in the prompt, marks of its own included."""
    if len(pieces) == 1:
        place, first, last = pieces[0]
        text, places = prompt[first:last], (*range(place, place + last - first), end)
    else:
        text = "".join([prompt[first:last] for _, first, last in pieces])
        found: list[int] = []
        for place, first, last in pieces:
            found.extend(range(place, place + last - first))
        places = (*found, end)
    return Words(text=text, weight=weight, start=pieces[0][0], end=end, places=places, group=group)


def group_number(prompt: str, start: int, end: int, notes: Notes) -> tuple[float, int] | None:
    """The weight that prompt[start:end], the text directly before a `)`, ends with, and where its colon stands.

    None where there is none; what was meant as one, or may not have been, is noted.
    """
    colon = prompt.rfind(":", start, end)
    if colon < 0:
        return None
    said = prompt[colon + 1 : end]
    value = number(said)
    if value is None:
        if _NUMBER_LIKE.fullmatch(said):
            _note_bad_number(said.strip(), colon, end, notes)
        return None
    if not _note_ratio(prompt, start, colon, end, notes) and not SANE[0] <= value <= SANE[1]:
        message = f"a weight of {value:g} is outside of {SANE[0]:g} to {SANE[1]:g}"
        notes.add("weight-out-of-range", message, colon, end)
    return value, colon


def _note_bad_number(said: str, colon: int, end: int, notes: Notes) -> None:
    meant = said.replace(",", ".")
    advice = f"write {meant}" if "," in said and number(meant) is not None else "the brackets weigh 1.1"
    quoted = said if len(said) <= 20 else said[:20] + "…"
    notes.add("bad-weight", f"{quoted} is no number and stays text; {advice}", colon, end)


def _note_ratio(prompt: str, start: int, colon: int, end: int, notes: Notes) -> bool:
    """Whether `16:9` was read as a weight of 9."""
    said = prompt[colon + 1 : end].strip()
    first = colon
    while first > start and "0" <= prompt[first - 1] <= "9":
        first -= 1
    before = prompt[first - 1] if first > start else " "
    if first == colon or not said.isdecimal() or before in ":." or before.isalpha():
        return False
    shown = f"{prompt[first:colon]}:{said}" if colon - first + len(said) < 20 else "this"
    message = f"{shown} is read as a weight of {said[:20]}; for the ratio escape the brackets or end with :1"
    notes.add("weight-from-ratio", message, first, end)
    return True
