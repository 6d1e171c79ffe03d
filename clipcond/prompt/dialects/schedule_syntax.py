"""Which square brackets of an A1111 prompt are schedules: `[from:to:when]`, `[to:when]`, `[from::when]`, `[a|b]`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from clipcond.prompt.dialects.reading import HEAVIEST

DEEPEST = 32  # schedules inside of schedules; what stands around more of them stays text
_WHEN = re.compile(r"\s*(?:([0-9]+)|([0-9]+\.[0-9]*|\.[0-9]+))\s*")


@dataclass(frozen=True, slots=True)
class ScheduleSpan:
    """A schedule's marks: the bracket at `start`, those between the options, and `close`; the number is not an option.

    A switch with one option says what comes in; before, there is nothing. `when` is None for an alternation, an int
    for a step and a float for a share of the steps.
    """

    start: int
    cuts: tuple[int, ...]
    close: int
    when: float | None


@dataclass(slots=True)
class _Open:
    at: int
    square: bool
    cuts: list[int]  # the `:` and `|` of its own
    height: int = 0  # schedules inside of one another that it holds


def find(prompt: str, marks: Sequence[int], too_deep: list[int]) -> dict[int, ScheduleSpan]:
    """The schedules among `marks`, the places of `[ ] ( ) : |`, escapes, tags and words like BREAK, in order.

    What is malformed is no schedule; a bracket around more than DEEPEST schedules is none either and is added to
    `too_deep`. Returns start → place.
    """
    found: dict[int, ScheduleSpan] = {}
    stack: list[_Open] = []
    squares: list[int] = []  # where in the stack the square ones are
    for at in marks:
        mark = prompt[at]
        if mark in "([":
            if mark == "[":
                squares.append(len(stack))
            stack.append(_Open(at, mark == "[", []))
        elif mark in ":|" and stack:
            stack[-1].cuts.append(at)
        elif mark == ")" and stack and not stack[-1].square:
            _pass_on(stack.pop(), stack)
        elif mark == "]" and squares:
            level = squares.pop()
            closed = stack[level]
            for loose in stack[level + 1 :]:  # round brackets that never closed
                closed.cuts += loose.cuts
                closed.height = max(closed.height, loose.height)
            del stack[level:]
            place = _schedule(prompt, closed, at)
            if place is not None and closed.height >= DEEPEST:
                too_deep.append(closed.at)
            elif place is not None:
                found[closed.at] = place
                closed.height += 1
            _pass_on(closed, stack)
    return found


def _pass_on(closed: _Open, stack: list[_Open]) -> None:
    if stack:
        stack[-1].height = max(stack[-1].height, closed.height)


def _schedule(prompt: str, closed: _Open, close: int) -> ScheduleSpan | None:
    """What the bracket that closes at `close` schedules."""
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
    when = int(min(float(step), HEAVIEST)) if share is None else min(float(share), HEAVIEST)
    return ScheduleSpan(closed.at, tuple(cuts), close, when)
