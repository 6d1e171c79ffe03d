"""A1111 prompt schedules: `[from:to:when]`, `[to:when]`, `[from::when]` and `[a|b]`, resolved to one text per run of steps.

Schedules are read before weights. Everything that is not a schedule is handed on as typed, brackets, escapes and LoRA
tags included.

`when` without a point is a step, with one a share of the steps: `[a:b:8]`, `[a:b:.25]`. With a hires pass, shares
from 1 to 2 address that pass (1.5 is half of it) and whole numbers count on through it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fractions import Fraction

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.reading import Notes
from clipcond.prompt.dialects.schedule_syntax import ScheduleSpan, find
from clipcond.prompt.dialects.tags import read_tags

_MARKS = re.compile(r"\\[()\[\]\\]|[()\[\]:|<]|\bAND\b")


def resolve(prompt: str, steps: int, hires_steps: int | None = None) -> tuple[tuple[int, str], ...]:
    """The texts of a scheduled prompt, each with the last step (from 1) that reads it; the last one ends the pass.

    hires_steps: None resolves the base pass of `steps` steps, a number the hires pass that follows it. Steps are those
    of the schedule, not calls of the denoiser. Neighbours with the same text are one entry. Malformed brackets stay
    text: no prompt raises.

    Raises ConfigError for less than one step.

    >>> resolve("a [cat:dog:.5] on grass", steps=20)
    ((10, 'a cat on grass'), (20, 'a dog on grass'))
    """
    total = steps if hires_steps is None else hires_steps
    if steps < 1 or total < 1:
        raise ConfigError(f"a pass of {min(steps, total)} steps cannot be scheduled; give 1 or more")
    places = _places(prompt)
    lasts = {place.start: _last_step(place.when, steps, hires_steps) for place in places if place.when is not None}
    runs: Sequence[int] = range(1, total + 1)  # with an alternation every step may differ
    if len(lasts) == len(places):
        runs = sorted({*(last for last in lasts.values() if 0 < last < total), total})
    result: list[tuple[int, str]] = []
    first = 1
    for last in runs:
        text = "".join(_pieces(prompt, places, lasts, first, 0, len(prompt)))
        if result and result[-1][1] == text:
            result.pop()
        result.append((last, text))
        first = last + 1
    return tuple(result)


def is_scheduled(prompt: str) -> bool:
    """Whether a prompt changes over the steps: it holds a well-formed schedule."""
    return bool(_places(prompt))


def _places(prompt: str) -> list[ScheduleSpan]:
    """The schedules of a prompt, in order; a bracket never reaches across an AND."""
    tags = read_tags(prompt, Notes(), None) if "<" in prompt else {}
    found: dict[int, ScheduleSpan] = {}
    marks: list[int] = []
    behind = 0
    for match in _MARKS.finditer(prompt):
        at = match.start()
        if at in tags:
            behind = tags[at].end
        elif at < behind:
            continue
        elif match[0] == "AND":
            found |= find(prompt, marks, [])
            marks = []
        else:
            marks.append(at)
    found |= find(prompt, marks, [])
    return [found[start] for start in sorted(found)]


def _last_step(when: float, steps: int, hires_steps: int | None) -> int:
    """The last step of the pass that reads the first text; 0 or less where none does. An int is a step, a float a share."""
    if isinstance(when, int):
        return when if hires_steps is None else when - steps
    share = Fraction(str(when))  # .29 of 100 steps are 29; in binary they would be 28.999…
    return int(share * steps if hires_steps is None else (share - 1) * hires_steps)


def _pieces(
    prompt: str, places: Sequence[ScheduleSpan], lasts: dict[int, int], step: int, start: int, end: int
) -> Iterator[str]:
    """The text of prompt[start:end] at a step. Schedules are nested to a fixed depth at most."""
    at = start
    number = bisect_left(places, at, key=_start)
    while number < len(places) and places[number].start < end:
        place = places[number]
        yield prompt[at : place.start]
        yield from _pieces(prompt, places, lasts, step, *_option(place, step, lasts))
        at = place.close + 1
        number = bisect_left(places, at, number, key=_start)
    yield prompt[at:end]


def _start(place: ScheduleSpan) -> int:
    return place.start


def _option(place: ScheduleSpan, step: int, lasts: dict[int, int]) -> tuple[int, int]:
    """The span of the option that holds at a step; an empty one where there is nothing before a switch."""
    edges = (place.start, *place.cuts, place.close)
    if place.when is None:
        number = (step - 1) % (len(edges) - 1)
    else:
        number = len(place.cuts) - 1 - (step <= lasts[place.start])
        if number < 0:
            return place.close, place.close
    return edges[number] + 1, edges[number + 1]
