"""The A1111 dialect: `(x)`, `[x]`, `(x:1.3)`, BREAK, AND, schedules, tags and comments, read in one pass over the marks.

Order of claims: comments, tags, AND, schedules, weights. Round and square brackets pair up independently of one another,
as their weights multiply; each option of a schedule is read for itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from clipcond.prompt.dialects.a1111_markup import Markup, find_markup
from clipcond.prompt.dialects.reading import (
    BARE,
    SANE,
    BracketGroups,
    FindingCollector,
    Piece,
    TextBuffer,
    blanks_after,
    blanks_before,
    bounded,
    decimal,
    group_number,
    make_words,
)
from clipcond.prompt.dialects.schedule_syntax import ScheduleSpan
from clipcond.prompt.items import Adapter, Break, Compose, Item, Schedule, Words

_Split = Callable[[Words], tuple[Item, ...]]


@dataclass(slots=True)
class TextRecord:
    """Words whose weight is not known yet: they stand in a round and in a square group."""

    pieces: list[Piece]
    end: int
    round: int
    square: int


@dataclass(slots=True)
class TimedRecord:
    """A schedule that is being read, with what is around it."""

    place: ScheduleSpan
    around: list[Record]
    floor: tuple[int, int]
    options: list[list[Record]]
    cut: int = 0  # of place.cuts, the next
    made: Schedule | None = None

    def next_cut(self) -> int:
        """Return the place of the next mark between options, -1 behind the last."""
        return self.place.cuts[self.cut] if self.cut < len(self.place.cuts) else -1


Record = TextRecord | TimedRecord | Break | Compose | Adapter


@dataclass(slots=True)
class Brackets:
    """The groups of both kinds: the innermost open ones, and the brackets that found no partner."""

    groups: BracketGroups = field(default_factory=BracketGroups)
    round: int = 0
    square: int = 0
    floor: tuple[int, int] = (0, 0)  # the groups around the option that is being read
    unclosed: list[int] = field(default_factory=list)  # groups
    stray: list[int] = field(default_factory=list)  # places

    def drop_unclosed(self) -> None:
        """Close, without an end, the groups that are open inside of the floor."""
        parent = self.groups.parent
        for node, floor in ((self.round, self.floor[0]), (self.square, self.floor[1])):
            while node != floor:
                self.unclosed.append(node)
                node = parent[node]
        self.round, self.square = self.floor

    def settle(self, findings: FindingCollector) -> None:
        """Work out all weights, and note the brackets without a partner."""
        self.groups.settle(self.unclosed)
        opened = self.groups.opened
        message = "this bracket never closes: it weighs all that follows"
        findings.add_each("unclosed-bracket", message, sorted([opened[node] for node in self.unclosed]))
        findings.add_each("stray-bracket", "nothing opens this bracket; it is read as text", self.stray)


def make_items(
    prompt: str,
    records: Sequence[Record],
    schedules: Sequence[TimedRecord],
    brackets: Brackets,
    findings: FindingCollector,
    split: _Split,
) -> tuple[Item, ...]:
    """Return the items of a prompt that was read to its end; `schedules` come inner ones first.

    Where nothing is left A1111 reads one empty piece.
    """
    brackets.settle(findings)
    make = _Maker(prompt, brackets.groups, findings, split)
    for timed in schedules:
        timed.made = Schedule(
            kind="alternate" if timed.place.when is None else "switch",
            options=tuple([tuple(make.items(option)) for option in timed.options]),
            when=0.0 if timed.place.when is None else timed.place.when,
            start=timed.place.start,
            end=timed.place.close + 1,
        )
    end = len(prompt)
    return tuple(make.items(records)) or (Words(text="", weight=1.0, start=end, end=end, places=(end,)),)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes items of records."""

    prompt: str
    groups: BracketGroups
    findings: FindingCollector
    split: _Split

    def items(self, records: Sequence[Record]) -> Iterator[Item]:
        """Yield the items of records; the schedules inside of them are made already."""
        for record in records:
            if isinstance(record, TextRecord):
                yield from self.split(self._words(record))
            elif isinstance(record, TimedRecord):
                if record.made is not None:
                    yield record.made
            else:
                yield record

    def _words(self, record: TextRecord) -> Words:
        groups = self.groups
        weight, group = groups.weights[record.round], groups.numbers[record.round]
        if record.square:
            weight = bounded(weight * groups.weights[record.square])
            group = max(group, groups.numbers[record.square])
        words = make_words(self.prompt, record.pieces, record.end, weight, group, joins=True)
        if not SANE[0] <= weight <= SANE[1] and not groups.blamed & {record.round, record.square}:
            self.findings.add("weight-out-of-range", f"brackets add up to {weight:g}", words.start, words.end)
        return words


_LOWER_BREAK = re.compile(r"(?:^|[,.;\n)\]])[ \t]*([Bb]reak)[ \t]*(?=$|[,.;\n(\[])")
_ESCAPED = frozenset("()[]\\")
_NEAR = 24  # characters around BREAK and AND in which shouted words are looked for


def read_a1111(
    prompt: str,
    findings: FindingCollector,
    split: Callable[[Words], tuple[Item, ...]],
    *,
    adapters: Collection[str] | None = None,
    schedules: bool = True,
    comments: bool = True,
    negative: bool = False,
) -> tuple[Item, ...]:
    """Return the items of an A1111 prompt.

    split: takes embeddings out of words.   schedules: False reads their brackets as emphasis, as A1111's weight pass
    alone does.   comments: False keeps `#` as text.   negative: reads AND and the weight behind a part as text.
    """
    markup = find_markup(prompt, findings, adapters=adapters, schedules=schedules, comments=comments, negative=negative)
    reader = _Reader(prompt, findings, markup)
    reader.read()
    for match in _LOWER_BREAK.finditer(prompt) if "reak" in prompt else ():
        findings.add("break-lower-case", "only BREAK in capitals starts a new chunk", *match.span(1))
    return make_items(prompt, reader.records, reader.closed, reader.brackets, findings, split)


class _Reader:
    """State of the pass: the open groups, the open schedules, and the text since the last mark."""

    def __init__(self, prompt: str, findings: FindingCollector, markup: Markup) -> None:
        self.prompt, self.findings, self.markup = prompt, findings, markup
        self.brackets = Brackets()
        self.text = TextBuffer()
        self.records: list[Record] = []
        self.into = self.records  # where records go: the prompt's, or those of an option
        self.open: list[TimedRecord] = []  # schedules, the innermost last
        self.closed: list[TimedRecord] = []  # schedules, inner ones first
        self.tails = {part.tail: part.end for part in markup.parts if part.end > part.tail}
        self.weights = {before.stop: part.weight for before, part in pairwise(markup.parts)}

    def read(self) -> None:
        """Read the prompt from mark to mark. The first part of several gets a mark of no width."""
        prompt = self.prompt
        if self.markup.parts:
            self.records.append(Compose(weight=self.markup.parts[0].weight, start=0, end=0))
        handle = {
            "(": self._round_opens,
            ")": self._round_closes,
            "[": self._square_opens,
            "]": self._square_closes,
            "\\": self._backslash,
            "<": self._tag,
            "#": self._comment,
            ":": self._separator,
            "|": self._separator,
            "B": self._break,
            "A": self._and,
        }
        for at in self.markup.marks:
            handle[prompt[at]](at)
        self._flush(len(prompt))
        self.brackets.drop_unclosed()

    def _flush(self, end: int) -> None:
        """Make a record of the text up to `end`."""
        if pieces := self.text.flush(end):
            brackets = self.brackets
            self.into.append(TextRecord(pieces, end, brackets.round, brackets.square))

    def _backslash(self, at: int) -> None:
        if self.prompt[at + 1 : at + 2] in _ESCAPED and at + 1 < len(self.prompt):
            self.text.take_escaped(at)
            return
        self.text.take(at)
        self.text.skip_to(at + 1)
        self.findings.add("dropped-backslash", "A1111 drops a lone backslash; write two to keep one", at, at + 1)

    def _comment(self, at: int) -> None:
        self.text.take(at)
        self.text.skip_to(self.markup.comments[at])

    def _tag(self, at: int) -> None:
        self._flush(at)
        self.into.append(self.markup.tags[at])
        self.text.skip_to(self.markup.tags[at].end)

    # brackets

    def _round_opens(self, at: int) -> None:
        self._flush(at)
        self.brackets.round = self.brackets.groups.open(self.brackets.round, at, BARE)
        self.text.skip_to(at + 1)

    def _round_closes(self, at: int) -> None:
        brackets, edge, end = self.brackets, self.text.edge, at
        node = brackets.round
        if node == brackets.floor[0]:
            brackets.stray.append(at)
            self.text.edge = at + 1
            return
        number = group_number(self.prompt, edge, at, self.findings) if at - edge > 1 else None
        if number is not None:
            brackets.groups.factor[node], end = number
            if not SANE[0] <= number[0] <= SANE[1]:
                brackets.groups.blamed.add(node)
        self._close(node, end, at)
        brackets.round = brackets.groups.parent[node]

    def _square_opens(self, at: int) -> None:
        self._flush(at)
        if at in self.markup.schedules:
            self._schedule_opens(self.markup.schedules[at])
        else:
            self.brackets.square = self.brackets.groups.open(self.brackets.square, at, 1 / BARE)
        self.text.skip_to(at + 1)

    def _square_closes(self, at: int) -> None:
        brackets = self.brackets
        node = brackets.square
        if self.open and self.open[-1].place.close == at:
            self._schedule_closes(at)
        elif node == brackets.floor[1]:
            brackets.stray.append(at)
            self.text.edge = at + 1
        else:
            edge = self.text.edge
            colon = self.prompt.rfind(":", edge, at)
            alone = colon >= 0 and self.prompt.find(":", edge, colon) < 0  # [a:b:5] is no weight that went wrong
            if alone and decimal(self.prompt[colon + 1 : at]) is not None:
                message = "square brackets take no number: it stays text; write (…:1.5) for a weight"
                self.findings.add("bracket-number", message, colon, at)
            self._close(node, at, at)
            brackets.square = brackets.groups.parent[node]

    def _close(self, node: int, end: int, at: int) -> None:
        """Close the group `node` at `at`; its text ends at `end`."""
        first = self.brackets.groups.opened[node] + 1
        if self.text.edge == first and (end == first or self.prompt[first:end].isspace()):
            self.findings.add("empty-group", "there is nothing in these brackets", first - 1, at + 1)
        self._flush(end)
        self.text.skip_to(at + 1)

    # schedules

    def _schedule_opens(self, place: ScheduleSpan) -> None:
        first: list[Record] = []
        options = [first] if place.when is None or len(place.cuts) == 2 else [[], first]
        timed = TimedRecord(place, self.into, self.brackets.floor, options)
        self.into.append(timed)
        self.open.append(timed)
        self.into, self.brackets.floor = first, (self.brackets.round, self.brackets.square)

    def _separator(self, at: int) -> None:
        """Read a `:` or `|`: in front of a part's weight, between the options of a schedule, or as text."""
        if at in self.tails:
            self._flush(at)
            self.text.skip_to(blanks_after(self.prompt, self.tails[at], len(self.prompt)))
        elif self.open and self.open[-1].next_cut() == at:
            timed = self.open[-1]
            timed.cut += 1
            self._flush(at)
            self.brackets.drop_unclosed()
            if timed.place.when is not None and timed.cut == len(timed.place.cuts):
                self.text.skip_to(timed.place.close)  # past the number
            else:
                self.into = []
                timed.options.append(self.into)
                self.text.skip_to(at + 1)

    def _schedule_closes(self, at: int) -> None:
        timed = self.open.pop()
        self._flush(at)
        self.brackets.drop_unclosed()
        self.closed.append(timed)
        self.into, self.brackets.floor = timed.around, timed.floor
        self.text.skip_to(at + 1)

    # words that are marks

    def _break(self, at: int) -> None:
        brackets = self.brackets
        self._flush(blanks_before(self.prompt, at, self.text.since))
        if self.into and isinstance(self.into[-1], Break):
            self.into.append(TextRecord([(at, at, at)], at, brackets.round, brackets.square))  # an empty chunk
        self.into.append(Break(start=at, end=at + 5))
        if brackets.round or brackets.square:
            self.findings.add("break-in-group", "the chunk ends here; the weight goes on behind it", at, at + 5)
        self._note_shouting(at, at + 5)
        self.text.skip_to(blanks_after(self.prompt, at + 5, len(self.prompt)))

    def _and(self, at: int) -> None:
        self._flush(at)
        self.brackets.drop_unclosed()
        self.into.append(Compose(weight=self.weights[at], start=at, end=at + 3))
        self._note_shouting(at, at + 3)
        self.text.skip_to(at + 3)

    def _note_shouting(self, at: int, end: int) -> None:
        """Note a BREAK or AND in the midst of capitals, which may be a word like the others."""
        near = self.prompt[max(0, at - _NEAR) : at].split()[-1:] + self.prompt[end : end + _NEAR].split()[:1]
        if any(len(word) > 1 and word.isalpha() and word.isupper() and word not in ("AND", "BREAK") for word in near):
            word = self.prompt[at:end]
            self.findings.add("shouted-keyword", f"{word} is read as a keyword; the word is {word.lower()}", at, end)
