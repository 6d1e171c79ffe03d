"""Square brackets of an A1111 prompt that are schedules: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b]`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from clipcond.prompt.dialects.reading import HEAVIEST

DEEPEST = 32  # schedules inside of schedules; the brackets around more of them stay text
_WHEN = re.compile(r"\s*(?:([+-]?[0-9]+)|([+-]?(?:[0-9]+\.[0-9]*|\.[0-9]+)))\s*")


@dataclass(frozen=True, slots=True)
class ScheduleSpan:
    """A schedule's marks: the bracket at `start`, those between the options, and `close`; the number is not an option.

    A switch with one option says what comes in; before, there is nothing. `when` is None for an alternation, an int
    for a step and a float for a share of the steps; below 1, the switch is over before the first step.
    """

    start: int
    cuts: tuple[int, ...]
    close: int
    when: float | None

    def options(self) -> tuple[tuple[int, int], ...]:
        """Return the spans of the options in the order of time; one that is not written is empty, at the bracket."""
        edges = (self.start, *self.cuts, self.close)
        spans = tuple((edges[number] + 1, edges[number + 1]) for number in range(len(edges) - 1))
        if self.when is None:
            return spans
        return spans[:2] if len(self.cuts) == 2 else ((self.start + 1, self.start + 1), spans[0])


@dataclass(frozen=True, slots=True)
class Schedules:
    """The schedules of a text by their start; brackets that hold too many; the `|` that ended them all, if one did."""

    spans: Mapping[int, ScheduleSpan]
    too_deep: tuple[int, ...] = ()
    ended_by: int | None = None


@dataclass(slots=True)
class _Open:
    at: int
    square: bool
    cuts: list[int]  # the `:` and `|` of its own
    height: int = 0  # schedules inside of one another that it holds


def find_schedules(prompt: str, marks: Sequence[int]) -> Schedules:
    """Find the schedules among `marks`, the places of `[ ] ( ) : |`, backslashes, tags and words like BREAK, in order.

    Malformed brackets are no schedule, nor is a bracket around more than DEEPEST of them. A `|` that no alternation takes
    ends them all, as in A1111.
    """
    found: dict[int, ScheduleSpan] = {}
    too_deep: list[int] = []
    bars: list[int] = []
    stack: list[_Open] = []
    squares: list[int] = []  # where in the stack the square ones are
    behind = -1  # the place behind the last lone backslash
    for at in marks:
        mark = prompt[at]
        if mark in "([":
            if mark == "[":
                squares.append(len(stack))
            stack.append(_Open(at, mark == "[", []))
        elif mark in ":|":
            if mark == "|" and at != behind:
                bars.append(at)
            if stack:
                stack[-1].cuts.append(at)
        elif mark == ")" and stack and not stack[-1].square:
            _pass_on(stack.pop(), stack)
        elif mark == "]" and squares:
            closed = _unstack(stack, squares.pop())
            place = _schedule(prompt, closed, at)
            if place is not None and closed.height >= DEEPEST:
                too_deep.append(closed.at)
            elif place is not None:
                found[closed.at] = place
                closed.height += 1
            _pass_on(closed, stack)
        elif mark == "\\":
            behind = at + 1
    if bars and found:
        taken = {cut for place in found.values() if place.when is None for cut in place.cuts}
        loose = next((at for at in bars if at not in taken), None)
        if loose is not None and not too_deep:
            return Schedules({}, ended_by=loose)
    return Schedules(found, tuple(too_deep))


def _unstack(stack: list[_Open], level: int) -> _Open:
    """Take a square bracket off the stack, with the round ones inside of it that never closed."""
    closed = stack[level]
    for loose in stack[level + 1 :]:
        closed.cuts += loose.cuts
        closed.height = max(closed.height, loose.height)
    del stack[level:]
    return closed


def _pass_on(closed: _Open, stack: list[_Open]) -> None:
    if stack:
        stack[-1].height = max(stack[-1].height, closed.height)


def _schedule(prompt: str, closed: _Open, close: int) -> ScheduleSpan | None:
    """Return the schedule of a bracket that closes at `close`, None if it is none."""
    cuts = closed.cuts
    kinds = {prompt[at] for at in cuts}
    if kinds == {"|"}:
        return ScheduleSpan(closed.at, tuple(cuts), close, None)
    if kinds != {":"} or len(cuts) > 2:
        return None
    match = _WHEN.fullmatch(prompt, cuts[-1] + 1, close)
    if match is None:
        return None
    step, share = match.groups()
    when = int(_within(float(step))) if share is None else _within(float(share))
    return ScheduleSpan(closed.at, tuple(cuts), close, when)


def _within(when: float) -> float:
    return min(max(when, -HEAVIEST), HEAVIEST)
