"""A1111 prompt schedules: `[from:to:when]`, `[to:when]`, `[from::when]` and `[a|b]`, resolved to one text per run of steps.

Schedules are read before weights. Everything that is not a schedule is handed on as typed, brackets, escapes and
LoRA tags included; `\\[`, `\\:` and the like are no syntax here. Time and memory are linear in the prompt.

`when` without a point is a step, with one a share of the steps: `[a:b:8]`, `[a:b:.25]`. With a hires pass, shares
from 1 to 2 address that pass (1.5 is half of it) and whole numbers count on through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise

from clipcond.errors import ConfigError

_TAG = r"<\w+:[^>]+>"  # a LoRA tag: its colons separate nothing
_PIECE = r"\\.|[\[\]():|]|<|[^\\\[\]():|<]+|\\"
_WITH_TAGS = re.compile(f"{_TAG}|{_PIECE}", re.DOTALL)
_WITHOUT_TAGS = re.compile(_PIECE, re.DOTALL)
_NUMBER = re.compile(r"\s*([0-9]*)(?:(\.)([0-9]*))?\s*")
_DIGITS = 15  # of a number: more of them in front are beyond every step, and more behind say nothing


@dataclass(slots=True)
class _When:
    """A moment as it was written: a step, or a share of the steps (1 to 2: of the hires pass)."""

    value: Fraction
    share: bool

    def last_step(self, steps: int, hires_steps: int | None) -> int:
        """The last step of the pass that is resolved that still reads the first text; 0 or less where none does."""
        if hires_steps is None:
            return int(self.value * steps if self.share else self.value)
        return int((self.value - 1) * hires_steps if self.share else self.value - steps)


@dataclass(slots=True)
class _Group:
    parts: list[str | _Group | _Switch | _Alternate] = field(default_factory=list)


@dataclass(slots=True)
class _Switch:
    before: _Group
    after: _Group
    when: _When


@dataclass(slots=True)
class _Alternate:
    options: list[_Group]


@dataclass(slots=True)
class _Open:
    """A bracket that is still open: what stands in it so far, and where in that its own `:` and `|` are."""

    mark: str
    parts: list[str | _Group | _Switch | _Alternate] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)


def resolve(prompt: str, steps: int, hires_steps: int | None = None) -> tuple[tuple[int, str], ...]:
    """The texts of a scheduled prompt, each with the last step (from 1) that reads it; the last one ends the pass.

    hires_steps: None resolves the base pass of `steps` steps, a number the hires pass that follows it. Neighbours with
    the same text are one entry. Malformed brackets stay text: no prompt raises.

    Raises ConfigError for less than one step.

    >>> resolve("a [cat:dog:.5] on grass", steps=20)
    ((10, 'a cat on grass'), (20, 'a dog on grass'))
    """
    total = steps if hires_steps is None else hires_steps
    if steps < 1 or total < 1:
        raise ConfigError(f"a pass of {min(steps, total)} steps cannot be scheduled; give 1 or more")
    tree = _read(prompt)
    changes = _changes(tree, steps, hires_steps)
    result: list[tuple[int, str]] = []
    first = 1
    for last in _last_steps(changes, total):
        text = _text(tree, first, steps, hires_steps)
        if result and result[-1][1] == text:
            result.pop()
        result.append((last, text))
        first = last + 1
    return tuple(result)


def _last_steps(changes: set[int] | None, total: int) -> Iterator[int]:
    """The last steps of the runs to look at, in order: those of the switches, or every step where texts alternate."""
    if changes is None:
        yield from range(1, total + 1)
    else:
        yield from sorted({step for step in changes if 0 < step < total})
        yield total


def _changes(tree: _Group, steps: int, hires_steps: int | None) -> set[int] | None:
    """After which steps a switch happens; None where an alternation asks for every step."""
    found: set[int] = set()
    waiting = [tree]
    while waiting:
        for part in waiting.pop().parts:
            match part:
                case _Group():
                    waiting.append(part)
                case _Switch():
                    found.add(part.when.last_step(steps, hires_steps))
                    waiting += (part.before, part.after)
                case _Alternate():
                    return None
    return found


def _text(tree: _Group, step: int, steps: int, hires_steps: int | None) -> str:
    """The text at one step. Groups nest as deep as the prompt pleases, hence no recursion."""
    pieces: list[str] = []
    waiting = [iter(tree.parts)]
    while waiting:
        for part in waiting[-1]:
            match part:
                case str():
                    pieces.append(part)
                    continue
                case _Group():
                    inner = part
                case _Switch():
                    inner = part.before if step <= part.when.last_step(steps, hires_steps) else part.after
                case _Alternate():
                    inner = part.options[(step - 1) % len(part.options)]
            waiting.append(iter(inner.parts))
            break
        else:
            waiting.pop()
    return "".join(pieces)


def _pieces(prompt: str) -> Iterator[str]:
    """Marks, escapes, tags and runs of text. Behind the last `>` no tag is looked for, which keeps the time linear."""
    border = prompt.rfind(">") + 1
    for match in _WITH_TAGS.finditer(prompt, 0, border):
        yield match[0]
    for match in _WITHOUT_TAGS.finditer(prompt, border):
        yield match[0]


def _read(prompt: str) -> _Group:
    """The tree of a prompt's brackets. What does not close, or is no schedule, is text around what is."""
    first, last = prompt.find("["), prompt.rfind("]") + 1
    if not -1 < first < last:
        return _Group([prompt])
    stack = [_Open("", [prompt[:first]])]
    squares: list[int] = []  # where in the stack the open square brackets are
    for piece in _pieces(prompt[first:last]):
        top = stack[-1]
        if piece in ("[", "("):
            if piece == "[":
                squares.append(len(stack))
            stack.append(_Open(piece))
        elif piece == "]" and squares:
            at = squares.pop()
            _flatten(stack, at)
            closed = stack.pop()
            stack[-1].parts.append(_schedule(closed) or _Group(["[", *closed.parts, "]"]))
        elif piece == ")" and top.mark == "(":
            stack.pop()
            stack[-1].parts.append(_Group(["(", *top.parts, ")"]))
        else:
            if piece in (":", "|"):
                top.marks.append(len(top.parts))
            top.parts.append(piece)
    _flatten(stack, 0)
    return _Group([*stack[0].parts, prompt[last:]])


def _flatten(stack: list[_Open], at: int) -> None:
    """Make text of the brackets above `at` that never closed; each part moves once."""
    base = stack[at]
    for lost in stack[at + 1 :]:
        base.parts.append(lost.mark)
        base.marks += (mark + len(base.parts) for mark in lost.marks)
        base.parts += lost.parts
    del stack[at + 1 :]


def _schedule(closed: _Open) -> _Switch | _Alternate | None:
    """What a closed square bracket schedules; None for emphasis and for what is malformed."""
    if not closed.marks:
        return None
    kinds = {closed.parts[mark] for mark in closed.marks}
    edges = [-1, *closed.marks, len(closed.parts)]
    if kinds == {"|"}:
        return _Alternate([_Group(closed.parts[a + 1 : b]) for a, b in pairwise(edges)])
    if kinds != {":"} or len(closed.marks) > 2:
        return None
    last = closed.parts[edges[-2] + 1 :]
    when = _when(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
    if when is None:
        return None
    fields = [_Group(closed.parts[a + 1 : b]) for a, b in pairwise(edges[:-1])]
    return _Switch(fields[0] if len(fields) == 2 else _Group(), fields[-1], when)


def _when(text: str) -> _When | None:
    match = _NUMBER.fullmatch(text)
    if match is None or not (match[1] or match[3]):
        return None
    whole, share = match[1].lstrip("0"), match[2] is not None
    if len(whole) > _DIGITS:
        whole = "9" * _DIGITS
    behind = (match[3] or "")[:_DIGITS]
    return _When(Fraction(int((whole or "0") + behind), 10 ** len(behind)), share)
