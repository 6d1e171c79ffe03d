"""compel's dialect: `word++`, `(red fox)1.3`, `"…"--`, `.attend()`, `.swap()`, `withLora()`, and whole prompts in
`(…).and()` or `(…).blend()`.

A bracket or a quote that does not pair up, or that holds what compel's grammar does not know, is text as it stands; so
is a call that is not well formed. Outside of brackets compel reads marks at the start of a word only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from clipcond.prompt.dialects.compel_calls import CALL, SwapCall, WholeCall, read_lora, read_swap, whole_call
from clipcond.prompt.dialects.compel_groups import WORD, Pairs, suffix
from clipcond.prompt.dialects.reading import SANE, BracketGroups, FindingCollector, Piece, make_words
from clipcond.prompt.items import Adapter, Compose, Item, Swap, Words

_ESCAPE = re.compile(r'\\[()",.+=\-]')
_FREE = re.compile(r"[^\s,]+")
_BRACKETS = re.compile(r"\\[()]|[()]")
_BLANK = re.compile(r"\s*")
_NO_CALL = "no call that compel can read; it stays text"


@dataclass(slots=True)
class _Text:
    pieces: list[Piece]
    end: int
    node: int


@dataclass(slots=True)
class _Swapped:
    swap: SwapCall
    start: int
    original: list[_Record]
    edited: list[_Record]


_Record = _Text | _Swapped | Adapter | Compose


@dataclass(slots=True)
class _Frame:
    """A stretch of text that is being read: up to `close`, then on at `after`, in the group `node` that is around it."""

    close: int
    after: int
    node: int
    inside: bool  # in brackets or quotes, where marks count anywhere
    into: list[_Record]
    ends_swap: bool = False


def read_compel(
    prompt: str,
    findings: FindingCollector,
    split: Callable[[Words], tuple[Item, ...]],
    adapters: Collection[str] | None = None,
) -> tuple[Item, ...]:
    """Return the items of a compel prompt. `split` takes embeddings out of words."""
    reader = _Reader(prompt, findings, _note_brackets(prompt, findings))
    whole = whole_call(prompt, reader.pairs)
    if whole is None:
        reader.stretch(0, len(prompt), inside=False)
    else:
        reader.parts(whole)
        if whole.how == "blend" and abs(sum(part.weight for part in whole.parts)) <= 1e-6:
            message = "the weights of this blend add up to 0: they are used as they are, not brought to a sum of 1"
            findings.add("blend-not-normalised", message, *whole.span)
    reader.groups.settle()
    items = tuple(reader.made(reader.records, split))
    for item in items:
        if adapters is not None and isinstance(item, Adapter) and item.name not in adapters:
            findings.add("unknown-adapter", "there is no adapter of this name", item.start, item.end)
    return items


def _note_brackets(prompt: str, findings: FindingCollector) -> set[int]:
    """Note brackets without a partner; the places of those that never close."""
    opened: list[int] = []
    stray: list[int] = []
    for match in _BRACKETS.finditer(prompt):
        at = match.start()
        if prompt[at] == "(":
            opened.append(at)
        elif prompt[at] == ")":
            if opened:
                opened.pop()
            else:
                stray.append(at)
    findings.add_each("unclosed-bracket", "this bracket never closes and is read as text", opened)
    findings.add_each("stray-bracket", "nothing opens this bracket; it is read as text", stray)
    return set(opened)


class _Reader:
    """State of the pass: where it stands in which brackets, and the text since the last mark."""

    def __init__(self, prompt: str, findings: FindingCollector, unclosed: set[int]) -> None:
        self.prompt, self.findings, self.unclosed = prompt, findings, unclosed
        self.pairs = Pairs(prompt)
        self.groups = BracketGroups()
        self.records: list[_Record] = []
        self.frames: list[_Frame] = []
        self.into = self.records
        self.swapping = False  # what is read is an argument of a swap: another one would be too much
        self.node = 0
        self.since = 0

    def parts(self, whole: WholeCall) -> None:
        """Read the parts of a call around the whole prompt."""
        self.records.extend(whole.before)
        for part in whole.parts:
            self.records.append(Compose(weight=part.weight, start=part.at, end=part.at + 1, how=whole.how))
            self.stretch(part.start, part.end, inside=part.inside)
        self.records.extend(whole.after)

    def stretch(self, start: int, end: int, *, inside: bool) -> None:
        """Read prompt[start:end]."""
        prompt, at = self.prompt, start
        self.since = start
        self.frames = [_Frame(end, end, 0, inside, self.records)]
        while self.frames:
            frame = self.frames[-1]
            if at >= frame.close:
                self._flush(frame.close)
                self.frames.pop()
                self.swapping = self.swapping and not frame.ends_swap
                at = self.since = frame.after
                self.node = frame.node
                self.into = self.frames[-1].into if self.frames else self.records
            elif prompt[at].isspace() or prompt[at] == ",":
                at += 1
            else:
                at = self._element(at, frame)

    def made(self, records: list[_Record], split: Callable[[Words], tuple[Item, ...]]) -> Iterator[Item]:
        """Yield the items of records, once the groups are settled."""
        for record in records:
            if isinstance(record, _Text):
                weight = self.groups.weights[record.node]
                words = make_words(self.prompt, record.pieces, record.end, weight, self.groups.numbers[record.node])
                if not SANE[0] <= weight <= SANE[1] and record.node not in self.groups.blamed:
                    self.findings.add("weight-out-of-range", f"marks add up to {weight:g}", words.start, words.end)
                yield from split(words)
            elif isinstance(record, _Swapped):
                yield Swap(  # no swap stands in another: this goes one step down
                    original=tuple(self.made(record.original, split)),
                    edited=tuple(self.made(record.edited, split)),
                    options=record.swap.options,
                    start=record.start,
                    end=record.swap.after,
                )
            else:
                yield record

    def _element(self, at: int, frame: _Frame) -> int:
        """Read what starts at `at`, neither a blank nor a comma; where to go on."""
        prompt = self.prompt
        if prompt[at] in '("':
            close = self.pairs.close(at)
            if 0 <= close < frame.close:
                return self._group(at, close, frame)
            if prompt[at] == "(" and at not in self.unclosed:
                message = "compel cannot read what stands in this bracket, a lone sign or quote: it is text"
                self.findings.add("bad-group", message, at, at + 1)
        elif adapter := read_lora(prompt, at, frame.close):
            self._flush(at)
            self.into.append(adapter)
            self.since = adapter.end
            return adapter.end
        elif word := WORD.match(prompt, at, frame.close):
            end = self._word(at, word.end(), frame)
            if end >= 0 or frame.inside:
                return end if end >= 0 else word.end()
        if prompt.startswith(("withLora(", "useLora("), at):
            self.findings.add("bad-call", _NO_CALL, at, prompt.index("(", at) + 1)
        if frame.inside:
            return at + 1
        free = _FREE.match(prompt, at, frame.close)
        end = free.end() if free else at + 1
        if call := CALL.search(prompt, at, end):
            self.findings.add("bad-call", _NO_CALL, call.start(), end)
        return end

    def _word(self, at: int, end: int, frame: _Frame) -> int:
        """Read the word prompt[at:end] with the mark behind it; where to go on, -1 where there is no mark."""
        if self.prompt.startswith(".swap(", end, frame.close):
            swap = self._swap(at, at, end, end, frame)
            return swap if swap >= 0 else self._bad_call(at, end + len(".swap("), frame)
        factor, after = suffix(self.prompt, end, frame.close, grouped=False)
        if after == end:
            return -1
        self._flush(at)
        node = self.groups.open(self.node, at, factor)
        if self.prompt[end] in "+-" and self._looks_like_a_name(at, end):
            message = f"read as a weight of {factor:g}; for the characters themselves write a backslash before each"
            self.findings.add("weight-from-suffix", message, end, after)
        self._blame(node, factor, end, after)
        self.into.append(_Text(self._pieces(at, end), end, node))
        self.since = after
        return after

    def _looks_like_a_name(self, at: int, end: int) -> bool:
        """Return True if a word may end in `++` by itself: C++, A+, Disney+, 18+."""
        return end - at == 1 or self.prompt[at].isupper() or self.prompt[end - 1].isdecimal()

    def _group(self, at: int, close: int, frame: _Frame) -> int:
        """Read a bracket or a quote that pairs up."""
        prompt = self.prompt
        factor, after = suffix(prompt, close + 1, frame.close, grouped=True)
        if prompt.startswith(".", after, frame.close) and (call := CALL.match(prompt, close + 1, frame.close)):
            swap = self._swap(at, at + 1, close, after, frame) if call[1] == "swap" else -1
            return swap if swap >= 0 else self._bad_call(at, call.end(), frame)
        if close == at + 1 or ((blank := _BLANK.match(prompt, at + 1, close)) and blank.end() == close):
            self.findings.add("empty-group", "there is nothing in these brackets", at, after)
        self._flush(at)
        if close == at + 1:
            self.since = after
            return after
        self.frames.append(_Frame(close, after, self.node, True, self.into))
        if after > close + 1:
            self.node = self.groups.open(self.node, at, factor)
            self._blame(self.node, factor, close + 1, after)
        self.since = at + 1
        return at + 1

    def _blame(self, node: int, factor: float, start: int, end: int) -> None:
        if not SANE[0] <= factor <= SANE[1]:
            self.groups.blamed.add(node)
            message = f"a weight of {factor:g} is outside of {SANE[0]:g} to {SANE[1]:g}"
            self.findings.add("weight-out-of-range", message, start, end)

    def _swap(self, at: int, start: int, end: int, call: int, frame: _Frame) -> int:
        """Begin the `x.swap(y)` at `at`, whose x is prompt[start:end] and whose point stands at `call`.

        Where to go on; -1 where it is not well formed or stands inside of another one.
        """
        swap = None if self.swapping else read_swap(self.prompt, call, frame.close)
        if swap is None:
            return -1
        self.swapping = True
        self._flush(at)
        record = _Swapped(swap, at, [], [])
        self.into.append(record)
        self.frames.append(_Frame(swap.end, swap.after, self.node, True, record.edited, ends_swap=True))
        self.frames.append(_Frame(end, swap.start, self.node, True, record.original))
        self.into = record.original
        self.since = start
        return start

    def _bad_call(self, at: int, arguments: int, frame: _Frame) -> int:
        """Leave the call that starts at `at` as text, its arguments too."""
        close = self.prompt.find(")", arguments, frame.close)
        end = arguments if close < 0 else close + 1
        self.findings.add("bad-call", _NO_CALL, at, end)
        return end

    def _flush(self, end: int) -> None:
        """Make words of the text up to `end`."""
        if end > self.since:
            self.into.append(_Text(self._pieces(self.since, end), end, self.node))
            self.since = end

    def _pieces(self, start: int, end: int) -> list[Piece]:
        """prompt[start:end] without the backslashes of its escapes."""
        pieces: list[Piece] = []
        if self.prompt.find("\\", start, end) >= 0:
            for match in _ESCAPE.finditer(self.prompt, start, end):
                at = match.start()
                if at > start:
                    pieces.append((start, start, at))
                pieces.append((at, at + 1, at + 2))
                start = at + 2
        if end > start:
            pieces.append((start, start, end))
        return pieces
