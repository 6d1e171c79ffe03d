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
from dataclasses import dataclass
from fractions import Fraction

from clipcond.errors import ConfigError
from clipcond.prompt.dialects.a1111_markup import find_comments, find_marks, find_tags
from clipcond.prompt.dialects.reading import FindingCollector
from clipcond.prompt.dialects.schedule_syntax import ScheduleSpan, find_schedules
from clipcond.prompt.findings import Finding

_MARKS = re.compile(r"\\[()\[\]\\]?|[()\[\]:|]|\bAND\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledText:
    """The text that a pass reads from step `first` to step `last`, both counted from 1."""

    first: int
    last: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSchedule:
    """The texts of a prompt over the steps of a pass, in their order, and what no step reads."""

    prompt: str
    steps: int
    texts: tuple[ScheduledText, ...]
    unread: tuple[Finding, ...]

    @property
    def distinct(self) -> tuple[str, ...]:
        """Each text once, in the order of the steps."""
        return tuple(dict.fromkeys(each.text for each in self.texts))


def resolve(
    prompt: str, steps: int, hires_steps: int | None = None, *, comments: bool = True, negative: bool = False
) -> tuple[tuple[int, str], ...]:
    """Return the texts of a scheduled prompt, each with the last step (from 1) that reads it; the last one ends the pass.

    hires_steps: None resolves the base pass of `steps` steps, a number the hires pass that follows it. Steps are those
    of the schedule, not calls of the denoiser. Neighbours with the same text are one entry. Malformed brackets stay
    text: no prompt raises.   comments, negative: as for `parse`.

    Raises ConfigError for less than one step.

    >>> resolve("a [cat:dog:.5] on grass", steps=20)
    ((10, 'a cat on grass'), (20, 'a dog on grass'))
    """
    spans = _spans(prompt, comments=comments, negative=negative)
    return _Pass(prompt, spans, steps, hires_steps).texts()


def schedule_of(
    prompt: str, steps: int, hires_steps: int | None = None, *, comments: bool = True, negative: bool = False
) -> PromptSchedule:
    """Return the texts of a prompt with their steps, and a finding for each option that no step of the pass reads.

    Arguments and errors are those of `resolve`.

    >>> schedule_of("a [cat:dog:.5]", steps=20).texts[1]
    ScheduledText(first=11, last=20, text='a dog')
    """
    spans = _spans(prompt, comments=comments, negative=negative)
    times = _Pass(prompt, spans, steps, hires_steps)
    texts, first = list[ScheduledText](), 1
    for last, text in times.texts():
        texts.append(ScheduledText(first=first, last=last, text=text))
        first = last + 1
    return PromptSchedule(prompt=prompt, steps=times.total, texts=tuple(texts), unread=tuple(times.unread()))


def is_scheduled(prompt: str, *, comments: bool = True, negative: bool = False) -> bool:
    """Return True if a prompt changes over the steps: it holds a well-formed schedule."""
    return "[" in prompt and bool(_spans(prompt, comments=comments, negative=negative))


def _spans(prompt: str, *, comments: bool, negative: bool) -> list[ScheduleSpan]:
    """Return the schedules of a prompt in order; a bracket never reaches across an AND."""
    commented = find_comments(prompt) if comments and "#" in prompt else {}
    marks = find_marks(prompt, _MARKS, commented, find_tags(prompt, commented, FindingCollector()))
    found: dict[int, ScheduleSpan] = {}
    start = 0
    borders = [] if negative else [index for index, at in enumerate(marks) if prompt[at] == "A"]
    for index in [*borders, len(marks)]:
        found.update(find_schedules(prompt, marks[start:index]).spans)
        start = index + 1
    return [found[start] for start in sorted(found)]


class _Pass:
    """The schedules of a prompt over a base pass, or over the hires pass behind it."""

    def __init__(self, prompt: str, spans: Sequence[ScheduleSpan], steps: int, hires_steps: int | None) -> None:
        self.total = steps if hires_steps is None else hires_steps
        if steps < 1 or self.total < 1:
            raise ConfigError(f"a pass of {min(steps, self.total)} steps cannot be scheduled; give 1 or more")
        self._prompt, self._spans = prompt, spans
        self._lasts = {span.start: last_step(span.when, steps, hires_steps) for span in spans if span.when is not None}

    def texts(self) -> tuple[tuple[int, str], ...]:
        """Return (last step, text); neighbours with the same text are one."""
        result: list[tuple[int, str]] = []
        first = 1
        for last in self._ends():
            text = "".join(self._pieces(first, 0, len(self._prompt)))
            if result and result[-1][1] == text:
                result.pop()
            result.append((last, text))
            first = last + 1
        return tuple(result)

    def unread(self) -> Iterator[Finding]:
        """Yield a finding for each option that no step reads; not for those inside of another one."""
        read: set[tuple[int, int]] = set()
        first = 1
        for last in self._ends():
            read.update(self._options_at(first))
            first = last + 1
        behind = 0
        for span in self._spans:
            for start, end in span.options():
                if (start, end) not in read and start >= behind and self._prompt[start:end].strip():
                    steps = "1 step" if self.total == 1 else f"{self.total} steps"
                    yield Finding("schedule-unread", f"none of the {steps} reads this", start, end)
                    behind = end

    def _ends(self) -> Sequence[int]:
        """Return the last steps of the runs in which nothing changes; with an alternation every step may differ."""
        if len(self._lasts) < len(self._spans):
            return range(1, self.total + 1)
        return sorted({*(last for last in self._lasts.values() if 0 < last < self.total), self.total})

    def _pieces(self, step: int, start: int, end: int) -> Iterator[str]:
        """Yield the text of prompt[start:end] at a step. Schedules are nested to a fixed depth at most."""
        at = start
        for span in self._inside(start, end):
            yield self._prompt[at : span.start]
            yield from self._pieces(step, *self._option(span, step))
            at = span.close + 1
        yield self._prompt[at:end]

    def _options_at(self, step: int) -> Iterator[tuple[int, int]]:
        """Yield the spans of all options that a step reads."""
        waiting = [(0, len(self._prompt))]
        while waiting:
            for span in self._inside(*waiting.pop()):
                option = self._option(span, step)
                yield option
                waiting.append(option)

    def _inside(self, start: int, end: int) -> Iterator[ScheduleSpan]:
        """Yield the outermost schedules of prompt[start:end]."""
        spans = self._spans
        number = bisect_left(spans, start, key=_start)
        while number < len(spans) and spans[number].start < end:
            yield spans[number]
            number = bisect_left(spans, spans[number].close + 1, number, key=_start)

    def _option(self, span: ScheduleSpan, step: int) -> tuple[int, int]:
        """Return the span of the option that holds at a step."""
        options = span.options()
        if span.when is None:
            return options[(step - 1) % len(options)]
        return options[step > self._lasts[span.start]]


def last_step(when: float, steps: int, hires_steps: int | None = None) -> int:
    """Return the last step that reads the first text; 0 or less where none does. An int is a step, a float a share."""
    if isinstance(when, int):
        return when if hires_steps is None else when - steps
    share = Fraction(str(when))  # .29 of 100 steps are 29; in binary they would be 28.999…
    return int(share * steps if hires_steps is None else (share - 1) * hires_steps)


def _start(span: ScheduleSpan) -> int:
    return span.start
