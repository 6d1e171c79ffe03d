"""ComfyUI's dialect: `(x)` and `(x:1.3)`, where an inner number replaces the outer weight, and `embedding:name`.

Brackets that do not balance switch weights off, from the outermost of them to the end of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain

from clipcond.prompt.dialects import reading
from clipcond.prompt.dialects.embedding_names import part
from clipcond.prompt.dialects.reading import BARE, SANE, Groups, Notes, Piece
from clipcond.prompt.items import Embedding, Item, Words

_MARKS = re.compile(r"\\[()]|[()]")
_EMBEDDING = re.compile(r"\bembedding:([^\s,:;()\[\]{}<>|]+)", re.IGNORECASE)
_EXTENSION = re.compile(r"\.(?:safetensors|pt|bin)$", re.IGNORECASE)


def read(prompt: str, notes: Notes, embeddings: Mapping[str, int]) -> tuple[Item, ...]:
    """The items of a ComfyUI prompt; what is odd goes to `notes`."""
    marks = [match.start() for match in _MARKS.finditer(prompt)]
    limit = _balanced_until(prompt, marks, notes)
    reader = _Reader(prompt, notes)
    reader.read(marks, limit)
    return tuple(chain.from_iterable(_named(words, embeddings, notes) for words in reader.words()))


def _balanced_until(prompt: str, marks: list[int], notes: Notes) -> int:
    """Where the first bracket stands that never closes, or the prompt ends."""
    opened: list[int] = []
    closed = -1  # the last bracket that closes one
    for at in marks:
        mark = prompt[at]
        if mark == "(":
            opened.append(at)
        elif mark == ")" and opened:
            opened.pop()
            closed = at
    if not opened:
        return len(prompt)
    notes.add_each("unclosed-bracket", "this bracket never closes and is read as text", opened)
    if closed > opened[0]:
        message = "weights do not count behind a bracket that never closes: all of this is text"
        notes.add("weights-disabled", message, opened[0], len(prompt))
    return opened[0]


class _Reader:
    """State of the pass: the open group, and the text since the last mark."""

    def __init__(self, prompt: str, notes: Notes) -> None:
        self.prompt, self.notes = prompt, notes
        self.groups = Groups()
        self.node = 0  # the innermost open group
        self.texts: list[tuple[list[Piece], int, int]] = []  # pieces, end, group
        self.pieces: list[Piece] = []
        self.since = 0
        self.edge = 0  # a group's number is not looked for before this

    def read(self, marks: list[int], limit: int) -> None:
        """Read up to `limit` from mark to mark, and the rest as text without weights."""
        prompt = self.prompt
        stray: list[int] = []
        for at in marks:
            mark = prompt[at]
            if at == limit:
                self._flush(at)
            if mark == "\\":
                self._take(at)
                self.pieces.append((at, at + 1, at + 2))
                self.since = self.edge = at + 2
            elif at >= limit:
                continue
            elif mark == "(":
                self._flush(at)
                self.node = self.groups.open(self.node, at, BARE)
                self.since = self.edge = at + 1
            elif self.node:
                self._close(at)
            else:
                stray.append(at)
                self.edge = at + 1
        self._flush(len(prompt))
        self.notes.add_each("stray-bracket", "nothing opens this bracket; it is read as text", stray)

    def words(self) -> Iterator[Words]:
        """The words with their weights."""
        groups = self.groups
        groups.settle()
        for pieces, end, node in self.texts:
            made = reading.words(self.prompt, pieces, end, groups.weights[node], groups.numbers[node])
            if not SANE[0] <= made.weight <= SANE[1] and node not in groups.blamed:
                message = f"brackets add up to {made.weight:g}"
                self.notes.add("weight-out-of-range", message, made.start, made.end)
            yield made

    def _close(self, at: int) -> None:
        node, end = self.node, at
        said = reading.group_number(self.prompt, self.edge, at, self.notes)
        if said is not None:
            self.groups.fixed[node], end = said
            if not SANE[0] <= said[0] <= SANE[1]:
                self.groups.blamed.add(node)
        opened = self.groups.opened[node]
        if self.edge == opened + 1 and not self.prompt[opened + 1 : end].strip():
            self.notes.add("empty-group", "there is nothing in these brackets", opened, at + 1)
        self._flush(end)
        self.since = self.edge = at + 1
        self.node = self.groups.parent[node]

    def _take(self, end: int) -> None:
        if end > self.since:
            self.pieces.append((self.since, self.since, end))

    def _flush(self, end: int) -> None:
        self._take(end)
        self.since = end
        if self.pieces:
            self.texts.append((self.pieces, end, self.node))
            self.pieces = []


def _named(words: Words, embeddings: Mapping[str, int], notes: Notes) -> Iterator[Item]:
    """Words with every `embedding:name` taken out; the name may carry its file's extension."""
    behind = 0
    for match in _EMBEDDING.finditer(words.text):
        name, length = _known(match[1], embeddings)
        first, last = match.start(), match.start(1) + length
        if first > behind:
            yield part(words, behind, first)
        start, end = words.places[first], words.places[last]
        if name not in embeddings:
            notes.add("unknown-embedding", "no embedding of this name is at hand; it takes no place", start, end)
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
        yield part(words, behind, len(words.text)) if behind else words


def _known(said: str, embeddings: Mapping[str, int]) -> tuple[str, int]:
    """The name that is meant, and how many characters of `said` say it."""
    plain = said.rstrip(".!?'\"")
    for length in (len(said), len(plain)):
        name = said[:length]
        short = _EXTENSION.sub("", name)
        for choice in (name, short):
            if choice in embeddings:
                return choice, length
    return _EXTENSION.sub("", plain) or said, len(plain) or len(said)
