"""ComfyUI's dialect: `(x)` and `(x:1.3)`, where an inner number replaces the outer weight, and `embedding:name`.

Brackets are counted from the left. One that nothing opens shifts the count, so that those behind it are text until a
further `(` makes up for it. One that never closes is text with all behind it, unless the text ends in a `)`: then the two
are a group, whatever stands between them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain

from clipcond.prompt.dialects.embedding_names import words_between
from clipcond.prompt.dialects.reading import (
    BARE,
    SANE,
    BracketGroups,
    FindingCollector,
    Piece,
    TextBuffer,
    group_number,
    make_words,
    python_float,
)
from clipcond.prompt.items import Embedding, Item, Words

_MARKS = re.compile(r"\\[()]|[()]")
_EMBEDDING = re.compile(r"\bembedding:([^\s,:;()\[\]{}<>|]+)", re.IGNORECASE)
_EXTENSION = re.compile(r"\.(?:safetensors|pt|bin)$", re.IGNORECASE)


def read_comfy(prompt: str, findings: FindingCollector, embeddings: Mapping[str, int]) -> tuple[Item, ...]:
    """Return the items of a ComfyUI prompt. embeddings: names and how many vectors they hold."""
    marks = [match.start() for match in _MARKS.finditer(prompt)]
    reader = _Reader(prompt, findings)
    reader.read(marks, *_brackets_that_count(prompt, marks, findings))
    return tuple(chain.from_iterable(_named(words, embeddings, findings) for words in reader.words()))


def _brackets_that_count(prompt: str, marks: Sequence[int], findings: FindingCollector) -> tuple[Collection[int], int]:
    """Return the places of the brackets of groups, and that of the first bracket that never closes, or -1.

    All brackets that are text are noted.
    """
    pairs = _Pairs()
    for at in marks:
        if prompt[at] == "(":
            pairs.open(at)
        elif prompt[at] == ")":
            pairs.close(at)
    findings.add_each("stray-bracket", "nothing opens this bracket; it is read as text", pairs.stray)
    if pairs.disabled:
        message = "weights do not count behind a ) that nothing opens: write \\) for the character"
        findings.add("weights-disabled", message, pairs.disabled[0], pairs.disabled[-1] + 1)
    groups, text_from, text_to = _peeled(prompt, marks, pairs)
    lost = [at for at in pairs.partner if text_from < at < text_to]
    findings.add_each("unclosed-bracket", "this bracket never closes and is read as text", pairs.unclosed)
    if lost:
        message = "weights do not count behind a bracket that never closes: all of this is text"
        findings.add("weights-disabled", message, text_from, text_to)
    counted = {*pairs.partner, *pairs.partner.values()} - {*lost, *(pairs.partner[at] for at in lost)}
    return counted | groups, text_from if pairs.unclosed else -1


class _Pairs:
    """Brackets paired up from the left."""

    def __init__(self) -> None:
        self.partner: dict[int, int] = {}  # of each bracket that closes one
        self.unclosed: list[int] = []
        self.stray: list[int] = []  # brackets that close nothing
        self.disabled: list[int] = []  # brackets that would be pairs if nothing stray stood before them
        self._shift = 0  # by so many the count is below zero
        self._waiting = 0  # disabled brackets that opened

    def open(self, at: int) -> None:
        """Count a `(`."""
        if self._shift:
            self._shift -= 1
            self._waiting += 1
            self.disabled.append(at)
        else:
            self.unclosed.append(at)

    def close(self, at: int) -> None:
        """Count a `)`."""
        if self.unclosed:
            self.partner[at] = self.unclosed.pop()
            return
        self._shift += 1
        if self._waiting:
            self._waiting -= 1
            self.disabled.append(at)
        else:
            self.stray.append(at)


def _peeled(prompt: str, marks: Sequence[int], pairs: _Pairs) -> tuple[set[int], int, int]:
    """Pair up the first bracket that never closes with a `)` at the text's very end, and so on inside of the two.

    Returns the brackets of those groups, and the span of the text inside of them whose brackets do not count.
    """
    groups: set[int] = set()
    unclosed, end, last = deque(pairs.unclosed), len(prompt), len(marks) - 1
    while unclosed and end - 1 in pairs.partner:
        at = end - 1
        first = unclosed.popleft()
        unclosed.append(pairs.partner.pop(at))
        groups |= {first, at}
        last -= 1
        behind = marks[last] + 1 + (prompt[marks[last]] == "\\")
        colon = prompt.rfind(":", max(behind, first + 2), at)
        end = colon if colon >= 0 and python_float(prompt[colon + 1 : at]) is not None else at
    pairs.unclosed = [*unclosed]
    return groups, unclosed[0] if unclosed else end, end


class _Reader:
    """State of the pass: the open group, and the text since the last mark."""

    def __init__(self, prompt: str, findings: FindingCollector) -> None:
        self.prompt, self.findings = prompt, findings
        self.groups = BracketGroups()
        self.node = 0  # the innermost open group
        self.records: list[tuple[list[Piece], int, int]] = []  # pieces, end, group
        self.text = TextBuffer()

    def read(self, marks: Sequence[int], counted: Collection[int], unclosed: int) -> None:
        """Read from mark to mark. Brackets that do not count are text, and an unclosed one starts a piece."""
        prompt = self.prompt
        for at in marks:
            mark = prompt[at]
            if mark == "\\":
                self.text.take_escaped(at)
            elif at not in counted:
                if at == unclosed:
                    self._flush(at)
                self.text.edge = at + 1
            elif mark == "(":
                self._flush(at)
                self.node = self.groups.open(self.node, at, BARE)
                self.text.skip_to(at + 1)
            else:
                self._close(at)
        self._flush(len(prompt))

    def words(self) -> Iterator[Words]:
        """Yield the words with their weights."""
        groups = self.groups
        groups.settle()
        for pieces, end, node in self.records:
            made = make_words(self.prompt, pieces, end, groups.weights[node], groups.numbers[node])
            if not SANE[0] <= made.weight <= SANE[1] and node not in groups.blamed:
                message = f"brackets add up to {made.weight:g}"
                self.findings.add("weight-out-of-range", message, made.start, made.end)
            yield made

    def _close(self, at: int) -> None:
        """Close the group at `at`. A colon directly behind its bracket is text."""
        node, end, first = self.node, at, self.groups.opened[self.node] + 1
        edge = self.text.edge
        number = group_number(self.prompt, max(edge, first + 1), at, self.findings, python_float)
        if number is not None:
            self.groups.fixed[node], end = number
            if not SANE[0] <= number[0] <= SANE[1]:
                self.groups.blamed.add(node)
        elif edge == first and self.prompt[first] == ":" and python_float(self.prompt[first + 1 : at]) is not None:
            message = "a number with no words before it stays text; the brackets weigh 1.1"
            self.findings.add("bad-weight", message, first, at)
        if edge == first and not self.prompt[first:end].strip():
            self.findings.add("empty-group", "there is nothing in these brackets", first - 1, at + 1)
        self._flush(end)
        self.text.skip_to(at + 1)
        self.node = self.groups.parent[node]

    def _flush(self, end: int) -> None:
        if pieces := self.text.flush(end):
            self.records.append((pieces, end, self.node))


def _named(words: Words, embeddings: Mapping[str, int], findings: FindingCollector) -> Iterator[Item]:
    """Yield the words with every `embedding:name` taken out; the name may carry its file's extension."""
    behind = 0
    for match in _EMBEDDING.finditer(words.text):
        name, length = _known(match[1], embeddings)
        first, last = match.start(), match.start(1) + length
        if first > behind:
            yield words_between(words, behind, first)
        start, end = words.places[first], words.places[last]
        if name not in embeddings:
            findings.add("unknown-embedding", "no embedding of this name is at hand; it takes no place", start, end)
        yield Embedding(
            name=name,
            vectors=embeddings.get(name, 0),
            weight=words.weight,
            start=start,
            end=end,
            group=words.group,
        )
        behind = last
    if behind < len(words.text):
        yield words_between(words, behind, len(words.text)) if behind else words


def _known(typed: str, embeddings: Mapping[str, int]) -> tuple[str, int]:
    """Return the name that is meant, and how many characters of `typed` say it."""
    plain = typed.rstrip(".!?'\"")
    for length in (len(typed), len(plain)):
        name = typed[:length]
        short = _EXTENSION.sub("", name)
        for choice in (name, short):
            if choice in embeddings:
                return choice, length
    return _EXTENSION.sub("", plain) or typed, len(plain) or len(typed)
