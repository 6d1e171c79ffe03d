"""The A1111 dialect: `(x)`, `[x]`, `(x:1.3)`, BREAK, AND, schedules and tags, read in one pass over the marks.

Order of claims: tags, AND, schedules, weights. Round and square brackets pair up independently of one another, as their
weights multiply; each option of a schedule is read for itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from clipcond.prompt.dialects import reading
from clipcond.prompt.dialects.reading import BARE, SANE, Groups, Notes, Piece
from clipcond.prompt.dialects.schedule_syntax import DEEPEST, ScheduleSpan, find
from clipcond.prompt.dialects.tags import read_tags
from clipcond.prompt.items import Adapter, Break, Compose, Item, Schedule, Words

_MARKS = re.compile(r"\\[()\[\]\\]|[()\[\]]|\b(?:BREAK|AND)\b")
_MARKS_OF_SCHEDULES = re.compile(rf"{_MARKS.pattern}|[:|]")
_LOWER_BREAK = re.compile(r"(?:^|[,.;\n)\]])[ \t]*([Bb]reak)[ \t]*(?=$|[,.;\n(\[])")
_NEAR = 24  # characters around BREAK and AND in which shouted words are looked for


@dataclass(slots=True)
class _Text:
    """Words whose weight is not known yet: they stand in a round and in a square group."""

    pieces: list[Piece]
    end: int
    round: int
    square: int


@dataclass(slots=True)
class _Timed:
    """A schedule that is being read, with what is around it; it is made once all weights are known."""

    place: ScheduleSpan
    around: list[_Record]
    floor: tuple[int, int]
    options: list[list[_Record]]
    cut: int = 0  # of place.cuts, the next
    made: Schedule | None = None

    def next_cut(self) -> int:
        """Where the next mark between options stands, -1 behind the last."""
        return self.place.cuts[self.cut] if self.cut < len(self.place.cuts) else -1


_Record = _Text | _Timed | Break | Compose | Adapter


def read(
    prompt: str,
    notes: Notes,
    split: Callable[[Words], tuple[Item, ...]],
    *,
    adapters: Collection[str] | None = None,
    schedules: bool = True,
) -> tuple[Item, ...]:
    """The items of an A1111 prompt; what is odd goes to `notes`.

    `split` takes embeddings out of words. Without `schedules` their brackets are emphasis, as A1111's weight pass alone
    reads them.
    """
    reader = _Reader(prompt, notes)
    tags = read_tags(prompt, notes, adapters) if "<" in prompt else {}
    scheduled = schedules and "[" in prompt and (":" in prompt or "|" in prompt)
    marks = _marks(prompt, tags, _MARKS_OF_SCHEDULES if scheduled else _MARKS)
    parts = _parts(prompt, marks, tags, notes) if "AND" in prompt else []
    if len(parts) > 1:
        reader.start_parts(parts)
        marks = sorted({*marks, *reader.tails})
    if scheduled:
        reader.schedules = _schedules(prompt, marks, notes)
    reader.tags = tags
    reader.read(marks)
    for match in _LOWER_BREAK.finditer(prompt):
        notes.add("break-lower-case", "only BREAK in capitals starts a new chunk", *match.span(1))
    return reader.items(split)


def _marks(prompt: str, tags: dict[int, Adapter], pattern: re.Pattern[str]) -> list[int]:
    """The places of all tags, and of all marks that no tag covers."""
    found: list[int] = []
    start = 0
    for tag in tags.values():
        found.extend([match.start() for match in pattern.finditer(prompt, start, tag.start)])
        found.append(tag.start)
        start = tag.end
    found.extend([match.start() for match in pattern.finditer(prompt, start)])
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """What stands between two ANDs: its weight, and the span that says it, empty where nothing does."""

    weight: float
    tail: int
    end: int
    stop: int  # where the AND behind it starts, or the prompt ends


def _parts(prompt: str, marks: list[int], tags: dict[int, Adapter], notes: Notes) -> list[_Part]:
    ends = {tag.end: tag.start for tag in tags.values()}
    parts: list[_Part] = []
    borders = [-3, *(at for at in marks if prompt[at] == "A"), len(prompt)]
    if len(borders) == 2:
        return []
    for before, stop in pairwise(borders):
        start, end = before + 3, reading.blanks_before(prompt, stop, before + 3)
        while ends.get(end, -1) >= start:
            end = reading.blanks_before(prompt, ends[end], start)
        said = None
        if end > start and (prompt[end - 1].isdecimal() or prompt[end - 1] == "."):
            said = reading.group_number(prompt, start, end, notes)
        if said is None:
            parts.append(_Part(1.0, end, end, stop))
        else:
            parts.append(_Part(said[0], said[1], end, stop))
    return parts


def _schedules(prompt: str, marks: list[int], notes: Notes) -> dict[int, ScheduleSpan]:
    """The schedules of all parts; none reaches across an AND."""
    found: dict[int, ScheduleSpan] = {}
    too_deep: list[int] = []
    start = 0
    for index, at in enumerate(marks):
        if prompt[at] == "A":
            found.update(find(prompt, marks[start:index], too_deep))
            start = index + 1
    found.update(find(prompt, marks[start:] if start else marks, too_deep))
    notes.add_each("schedule-too-deep", f"more than {DEEPEST} schedules inside of one another", sorted(too_deep))
    for place in found.values():
        if place.when is not None and len(place.cuts) == 1 and not float(place.when).is_integer() and place.when > 1:
            message = f"no weight: a schedule that starts in the hires pass; for a weight write (…:{place.when:g})"
            notes.add("bracket-number", message, place.cuts[0], place.close)
    return found


@dataclass(slots=True)
class _Reader:
    """State of the pass: the open groups, the open schedules, and the text since the last mark."""

    prompt: str
    notes: Notes
    schedules: dict[int, ScheduleSpan] = field(default_factory=dict)
    tags: dict[int, Adapter] = field(default_factory=dict)
    tails: dict[int, int] = field(default_factory=dict)  # where a part's weight stands: start → end
    weights: dict[int, float] = field(default_factory=dict)  # of the part behind an AND
    groups: Groups = field(default_factory=Groups)
    unclosed: list[int] = field(default_factory=list)  # groups
    stray: list[int] = field(default_factory=list)  # places
    open: list[_Timed] = field(default_factory=list)  # schedules, the innermost last
    closed: list[_Timed] = field(default_factory=list)  # schedules, inner ones first
    into: list[_Record] = field(default_factory=list)  # where records go: the prompt's, or those of an option
    pieces: list[Piece] = field(default_factory=list)
    since: int = 0  # text from here on has not been taken yet
    edge: int = 0  # a group's number is not looked for before this
    round: int = 0  # the innermost open group of each kind
    square: int = 0
    floor: tuple[int, int] = (0, 0)  # the groups around the option that is being read

    def start_parts(self, parts: list[_Part]) -> None:
        """Note the weights of the parts around AND; the first gets a mark of no width."""
        self.into.append(Compose(weight=parts[0].weight, start=0, end=0))
        self.weights = {before.stop: part.weight for before, part in pairwise(parts)}
        self.tails = {part.tail: part.end for part in parts if part.end > part.tail}

    def read(self, marks: list[int]) -> None:
        """Read the prompt from mark to mark."""
        prompt = self.prompt
        handle = {
            "(": self._round_opens,
            ")": self._round_closes,
            "[": self._square_opens,
            "]": self._square_closes,
            "\\": self._escape,
            "<": self._tag,
            ":": self._separator,
            "|": self._separator,
            "B": self._break,
            "A": self._and,
        }
        for at in marks:
            handle[prompt[at]](at)
        self._flush(len(prompt))
        self._drop_unclosed()

    def items(self, split: Callable[[Words], tuple[Item, ...]]) -> tuple[Item, ...]:
        """The items, now that every bracket is read; all that is odd about brackets is noted."""
        self.groups.settle(self.unclosed)
        opened = self.groups.opened
        self.notes.add_each(
            "unclosed-bracket",
            "this bracket never closes: it weighs all that follows",
            sorted([opened[node] for node in self.unclosed]),
        )
        self.notes.add_each("stray-bracket", "nothing opens this bracket; it is read as text", self.stray)
        for timed in self.closed:
            options = tuple(tuple(self._made(option, split)) for option in timed.options)
            timed.made = Schedule(
                kind="alternate" if timed.place.when is None else "switch",
                options=options,
                when=0.0 if timed.place.when is None else timed.place.when,
                start=timed.place.start,
                end=timed.place.close + 1,
            )
        items = tuple(self._made(self.into, split))
        if items:
            return items
        end = len(self.prompt)  # A1111 reads one empty piece where nothing is left
        return (Words(text="", weight=1.0, start=end, end=end, places=(end,)),)

    def _made(self, records: list[_Record], split: Callable[[Words], tuple[Item, ...]]) -> Iterator[Item]:
        groups = self.groups
        for record in records:
            if isinstance(record, _Text):
                weight, group = groups.weights[record.round], groups.numbers[record.round]
                if record.square:
                    weight = reading.bounded(weight * groups.weights[record.square])
                    group = max(group, groups.numbers[record.square])
                made = reading.words(self.prompt, record.pieces, record.end, weight, group)
                if not SANE[0] <= weight <= SANE[1] and not groups.blamed & {record.round, record.square}:
                    self.notes.add("weight-out-of-range", f"brackets add up to {weight:g}", made.start, made.end)
                yield from split(made)
            elif isinstance(record, _Timed):
                if record.made is not None:
                    yield record.made
            else:
                yield record

    def _take(self, end: int) -> None:
        if end > self.since:
            self.pieces.append((self.since, self.since, end))

    def _flush(self, end: int) -> None:
        """Make words of the text up to `end`."""
        self._take(end)
        if self.pieces:
            self.into.append(_Text(self.pieces, end, self.round, self.square))
            self.pieces = []

    def _go_on(self, at: int) -> None:
        self.since = self.edge = at

    def _escape(self, at: int) -> None:
        self._take(at)
        self.pieces.append((at, at + 1, at + 2))
        self._go_on(at + 2)

    def _tag(self, at: int) -> None:
        self._flush(at)
        self.into.append(self.tags[at])
        self._go_on(self.tags[at].end)

    def _round_opens(self, at: int) -> None:
        if at > self.since or self.pieces:
            self._flush(at)
        self.round = self.groups.open(self.round, at, BARE)
        self.since = self.edge = at + 1

    def _round_closes(self, at: int) -> None:
        node = self.round
        if node == self.floor[0]:
            self.stray.append(at)
            self.edge = at + 1
            return
        end = at
        said = reading.group_number(self.prompt, self.edge, at, self.notes) if at - self.edge > 1 else None
        if said is not None:
            self.groups.factor[node], end = said
            if not SANE[0] <= said[0] <= SANE[1]:
                self.groups.blamed.add(node)
        self._close(node, end, at)
        self.round = self.groups.parent[node]

    def _square_opens(self, at: int) -> None:
        if at > self.since or self.pieces:
            self._flush(at)
        if at in self.schedules:
            self._schedule_opens(self.schedules[at])
        else:
            self.square = self.groups.open(self.square, at, 1 / BARE)
        self.since = self.edge = at + 1

    def _square_closes(self, at: int) -> None:
        node = self.square
        if self.open and self.open[-1].place.close == at:
            self._schedule_closes(at)
        elif node == self.floor[1]:
            self.stray.append(at)
            self.edge = at + 1
        else:
            colon = self.prompt.rfind(":", self.edge, at)
            if colon >= 0 and reading.number(self.prompt[colon + 1 : at]) is not None:
                message = "square brackets take no number: it stays text; write (…:1.5) for a weight"
                self.notes.add("bracket-number", message, colon, at)
            self._close(node, at, at)
            self.square = self.groups.parent[node]

    def _close(self, node: int, end: int, at: int) -> None:
        """The group `node` closes at `at`; its text ends at `end`."""
        opened = self.groups.opened[node]
        if self.edge == opened + 1 and (end == opened + 1 or self.prompt[opened + 1 : end].isspace()):
            self.notes.add("empty-group", "there is nothing in these brackets", opened, at + 1)
        if end > self.since or self.pieces:
            self._flush(end)
        self.since = self.edge = at + 1

    def _drop_unclosed(self) -> None:
        """Close, without an end, what is open inside of the floor."""
        parent = self.groups.parent
        for node, floor in ((self.round, self.floor[0]), (self.square, self.floor[1])):
            while node != floor:
                self.unclosed.append(node)
                node = parent[node]
        self.round, self.square = self.floor

    def _schedule_opens(self, place: ScheduleSpan) -> None:
        first: list[_Record] = []
        options = [first] if place.when is None or len(place.cuts) == 2 else [[], first]
        timed = _Timed(place, self.into, self.floor, options)
        self.into.append(timed)
        self.open.append(timed)
        self.into, self.floor = first, (self.round, self.square)

    def _separator(self, at: int) -> None:
        if at in self.tails:
            self._flush(at)
            self._go_on(reading.blanks_after(self.prompt, self.tails[at], len(self.prompt)))
        elif self.open and self.open[-1].next_cut() == at:
            timed = self.open[-1]
            timed.cut += 1
            self._flush(at)
            self._drop_unclosed()
            if timed.place.when is not None and timed.cut == len(timed.place.cuts):
                self._go_on(timed.place.close)  # past the number
            else:
                self.into = []
                timed.options.append(self.into)
                self._go_on(at + 1)

    def _schedule_closes(self, at: int) -> None:
        timed = self.open.pop()
        self._flush(at)
        self._drop_unclosed()
        self.closed.append(timed)
        self.into, self.floor = timed.around, timed.floor
        self._go_on(at + 1)

    def _break(self, at: int) -> None:
        self._flush(reading.blanks_before(self.prompt, at, self.since))
        if self.into and isinstance(self.into[-1], Break):
            self.into.append(_Text([(at, at, at)], at, self.round, self.square))  # an empty chunk
        self.into.append(Break(start=at, end=at + 5))
        if self.round or self.square:
            self.notes.add("break-in-group", "the chunk ends here; the weight goes on behind it", at, at + 5)
        self._note_shouting(at, at + 5)
        self._go_on(reading.blanks_after(self.prompt, at + 5, len(self.prompt)))

    def _and(self, at: int) -> None:
        self._flush(at)
        self._drop_unclosed()
        self.into.append(Compose(weight=self.weights[at], start=at, end=at + 3))
        self._note_shouting(at, at + 3)
        self._go_on(at + 3)

    def _note_shouting(self, at: int, end: int) -> None:
        """Note a BREAK or AND in the midst of capitals, which may be a word like the others."""
        near = self.prompt[max(0, at - _NEAR) : at].split()[-1:] + self.prompt[end : end + _NEAR].split()[:1]
        if any(len(word) > 1 and word.isalpha() and word.isupper() and word not in ("AND", "BREAK") for word in near):
            word = self.prompt[at:end]
            self.notes.add("shouted-keyword", f"{word} is read as a keyword; the word is {word.lower()}", at, end)
