"""Records of an A1111 prompt that is being read, and the items that they become once all weights are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from clipcond.prompt.dialects.bracket_groups import BracketGroups
from clipcond.prompt.dialects.collector import FindingCollector
from clipcond.prompt.dialects.schedule_syntax import ScheduleSpan
from clipcond.prompt.dialects.text_pieces import Piece, make_words
from clipcond.prompt.dialects.weights import SANE, bounded
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
