"""Marks of an A1111 prompt that are claimed before its weights: comments, tags, AND with its weights, schedules."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from clipcond.prompt.dialects.adapter_tags import read_tags
from clipcond.prompt.dialects.reading import FindingCollector, blanks_before, decimal, group_number
from clipcond.prompt.dialects.schedule_syntax import DEEPEST, ScheduleSpan, find_schedules
from clipcond.prompt.items import Adapter

_COMMENT = re.compile(r"#[^\n]*")
# each mark begins with a literal, which `re` looks for far faster than for a set or for `\b`
_MARKS = r"\\[()\[\]\\]?|\(|\)|\[|\]|B(?<!\wB)REAK\b"
_PATTERNS = {  # (schedules, AND) -> the marks that count
    (schedules, composed): re.compile(
        _MARKS + (r"|A(?<!\wA)ND\b" if composed else "") + (r"|:|\|" if schedules else "")
    )
    for schedules in (False, True)
    for composed in (False, True)
}
_AND = re.compile(r"\bAND\b")


@dataclass(frozen=True, slots=True)
class Part:
    """A passage between two ANDs: its weight, the span that says it, and the place of the AND behind it."""

    weight: float
    tail: int
    end: int  # the tail is empty where nothing says a weight
    stop: int  # the prompt's end for the last part


@dataclass(frozen=True, slots=True, kw_only=True)
class Markup:
    """Places of all marks in order, and what stands at some of them. Maps go from the start of a mark."""

    marks: Sequence[int]
    comments: Mapping[int, int]  # to the end
    tags: Mapping[int, Adapter]
    parts: Sequence[Part]  # none for a prompt that is one and has no weight of its own
    schedules: Mapping[int, ScheduleSpan]


def find_markup(
    prompt: str,
    findings: FindingCollector,
    *,
    adapters: Collection[str] | None,
    schedules: bool,
    comments: bool,
    negative: bool,
) -> Markup:
    """Find the marks of a prompt.

    Without `schedules` their brackets are emphasis. A `negative` prompt has no parts: AND is a word in it.
    """
    commented = find_comments(prompt, findings) if comments and "#" in prompt else {}
    tags = find_tags(prompt, commented, findings, adapters)
    scheduled = schedules and "[" in prompt and (":" in prompt or "|" in prompt)
    composed = "AND" in prompt and not negative
    marks = find_marks(prompt, _PATTERNS[scheduled, composed], commented, tags)
    parts = [] if negative else _parts(prompt, marks, commented, tags, findings)
    if tails := [part.tail for part in parts if part.end > part.tail]:
        marks = sorted({*marks, *tails})
    if negative and "AND" in prompt:
        for match in _AND.finditer(prompt):
            message = "AND is a word in a negative prompt: A1111 composes prompts only"
            findings.add("and-is-text", message, *match.span())
    found = _schedules(prompt, marks, findings) if scheduled else {}
    return Markup(marks=marks, comments=commented, tags=tags, parts=parts, schedules=found)


def find_comments(prompt: str, findings: FindingCollector | None = None) -> dict[int, int]:
    """Return the comments of a prompt, start → end: `#` and all behind it up to the end of the line."""
    found = {match.start(): match.end() for match in _COMMENT.finditer(prompt)}
    if findings is not None:
        for start, end in found.items():
            findings.add("comment", "# starts a comment in A1111: nothing reads the rest of the line", start, end)
    return found


def find_tags(
    prompt: str,
    comments: Mapping[int, int],
    findings: FindingCollector,
    adapters: Collection[str] | None = None,
) -> dict[int, Adapter]:
    """Return the tags outside of comments, start → Adapter."""
    if "<" not in prompt:
        return {}
    found: dict[int, Adapter] = {}
    for start, end in _between(prompt, comments):
        found.update(read_tags(prompt, findings, adapters, start, end))
    return found


def find_marks(
    prompt: str, pattern: re.Pattern[str], comments: Mapping[int, int], tags: Mapping[int, Adapter]
) -> list[int]:
    """Return the places of all comments and tags, and of all marks that none of them covers."""
    if not comments and not tags:
        return [match.start() for match in pattern.finditer(prompt)]
    covered = sorted([*comments.items(), *((start, tag.end) for start, tag in tags.items())])
    found: list[int] = []
    at = 0
    for start, end in covered:
        found.extend([match.start() for match in pattern.finditer(prompt, at, start)])
        found.append(start)
        at = end
    found.extend([match.start() for match in pattern.finditer(prompt, at)])
    return found


def _between(prompt: str, comments: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield the spans of a prompt outside of comments."""
    at = 0
    for start, end in comments.items():
        yield at, start
        at = end
    yield at, len(prompt)


def _parts(
    prompt: str,
    marks: Sequence[int],
    comments: Mapping[int, int],
    tags: Mapping[int, Adapter],
    findings: FindingCollector,
) -> list[Part]:
    """Return the parts of a prompt; none where it has no AND and no weight of its own."""
    if ":" not in prompt and "AND" not in prompt:
        return []
    borders = [-3, *[at for at in marks if prompt[at] == "A"], len(prompt)]
    ignored = {tag.end: start for start, tag in tags.items()} | {end: start for start, end in comments.items()}
    if len(borders) == 2:
        end = _text_end(prompt, 0, len(prompt), ignored)
        colon = prompt.rfind(":", 0, end)
        if colon < 0 or decimal(prompt[colon + 1 : end]) is None or _inside_brackets(prompt, marks, colon):
            return []
    parts: list[Part] = []
    for before, stop in pairwise(borders):
        start = before + 3
        end = _text_end(prompt, start, stop, ignored)
        number = None
        if end > start and (prompt[end - 1].isdecimal() or prompt[end - 1] == "."):
            number = group_number(prompt, start, end, findings)
        parts.append(Part(1.0, end, end, stop) if number is None else Part(number[0], number[1], end, stop))
    if len(parts) == 1 and parts[0].weight != 1:
        message = f"the whole prompt weighs {parts[0].weight:g} in A1111; only the guidance can apply that"
        findings.add("prompt-weight", message, parts[0].tail, parts[0].end)
    return parts


def _text_end(prompt: str, start: int, stop: int, ignored: Mapping[int, int]) -> int:
    """Return the end of the text in prompt[start:stop], without blanks, tags and comments behind it."""
    end = blanks_before(prompt, stop, start)
    while ignored.get(end, -1) >= start:
        end = blanks_before(prompt, ignored[end], start)
    return end


def _inside_brackets(prompt: str, marks: Sequence[int], place: int) -> bool:
    """True if a bracket of either kind is open at a place."""
    depths = {"(": 0, "[": 0}
    for at in marks:
        if at >= place:
            break
        mark = prompt[at]
        if mark in "([":
            depths[mark] += 1
        elif mark in ")]":
            opening = "(" if mark == ")" else "["
            depths[opening] = max(depths[opening] - 1, 0)
    return any(depths.values())


def _schedules(prompt: str, marks: Sequence[int], findings: FindingCollector) -> dict[int, ScheduleSpan]:
    """Return the schedules of all parts; none reaches across an AND."""
    found: dict[int, ScheduleSpan] = {}
    too_deep: list[int] = []
    start = 0
    for index in [*(index for index, at in enumerate(marks) if prompt[at] == "A"), len(marks)]:
        of_part = find_schedules(prompt, marks[start:index])
        start = index + 1
        found.update(of_part.spans)
        too_deep += of_part.too_deep
        if of_part.ended_by is not None:
            message = "a | outside of [a|b] ends all schedules of A1111: their brackets are read as emphasis"
            findings.add("schedules-disabled", message, of_part.ended_by, of_part.ended_by + 1)
    findings.add_each("schedule-too-deep", f"more than {DEEPEST} schedules inside of one another", sorted(too_deep))
    for place in found.values():
        if place.when is not None and len(place.cuts) == 1 and not float(place.when).is_integer() and place.when > 1:
            message = f"no weight: a schedule that starts in the hires pass; for a weight write (…:{place.when:g})"
            findings.add("bracket-number", message, place.cuts[0], place.close)
    return found
