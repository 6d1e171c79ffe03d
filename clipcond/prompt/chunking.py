"""Chunking: cut a prompt that is longer than one pass of an encoder.

A policy is a pure function (slots, start, end) -> border: of slots[start:end], which fill a chunk, slots[start:border]
stay. It may move the border to the left and never empties the chunk.

| policy | cuts |
|---|---|
| `hard` | when the chunk is full |
| `a1111` | after the last comma, if it stands within the last 20 places and no comma follows |
| `word` | never inside a word that fits a chunk |
| `phrase` | never inside a weighted group that fits a chunk, nor inside a word |
| `comfy` | before a piece of one weight that has under 8 tokens, else when the chunk is full |
| `compel-sentences` | after the last full stop, else after the last `, ; :`, else at a word's end; however far back |
| `compel-phrases` | after the last of `. , ; :`, else at a word's end; however far back |

Under all of them the vectors of an embedding stay together where they fit a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

from clipcond.errors import ConfigError
from clipcond.prompt.tokenizer import CONTENT

COMMA, FULL_STOP, COLON, SEMICOLON = 267, 269, 281, 282
BACKTRACK = 20  # places that the a1111 policy goes back at most
MOVES_WHOLE = 8  # a piece with fewer tokens is not cut by the comfy policy


class Slot(NamedTuple):
    """A place for one token, and what a policy may want to know about it.

    ends_word: a word ends here.   segment: numbers the pieces of one weight, in their order.
    group: numbers the weighted groups, -1 outside of all.   unit: numbers the embeddings, -1 outside of all.
    """

    id: int
    ends_word: bool = True
    segment: int = 0
    group: int = -1
    unit: int = -1


class Slots(Protocol):
    """The places of a text; a list of them, or what makes them as they are looked at."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: int, /) -> Slot: ...


Policy = Callable[[Slots, int, int], int]


def split(slots: Slots, chunking: str, size: int = CONTENT) -> list[tuple[int, int]]:
    """The chunks, as half-open spans that tile the slots; one empty span for no slots.

    Takes time linear in the number of slots. Raises ConfigError for an unknown policy.
    """
    check(chunking)
    policy = _policy(chunking, slots, size)
    spans = []
    start = 0
    while len(slots) - start > size:
        full = start + size
        end = _unit_start(slots, start, full)
        border = _unit_start(slots, start, policy(slots, start, end)) if end > start else full
        border = border if border > start else full
        spans.append((start, border))
        start = border
    return [*spans, (start, len(slots))]


def check(chunking: str) -> None:
    """Raise ConfigError for a policy that does not exist."""
    if chunking not in POLICIES:
        raise ConfigError(f"unknown chunking {chunking!r}; there are {', '.join(POLICIES)}")


def hard(slots: Slots, start: int, end: int) -> int:
    """At the end, whatever stands there."""
    return end


def a1111(slots: Slots, start: int, end: int, size: int = CONTENT) -> int:
    """After the last comma, not more than 20 places back; not where the chunk ends for another reason than its size."""
    if end - start < size or slots[end].id == COMMA:
        return end
    found = _last(slots, max(start, end - BACKTRACK), end, {COMMA})
    return end if found is None else found + 1


def word(slots: Slots, start: int, end: int) -> int:
    """Before a word that would be cut, unless it fills the chunk."""
    return next((at + 1 for at in range(end - 1, start - 1, -1) if slots[at].ends_word), end)


def comfy(slots: Slots, start: int, end: int) -> int:
    """Before a piece of one weight that would be cut and has under 8 tokens."""
    segment = slots[end].segment
    first, last = end, end
    while first > start and end - first < MOVES_WHOLE and slots[first - 1].segment == segment:
        first -= 1
    while last < len(slots) and last - first < MOVES_WHOLE and slots[last].segment == segment:
        last += 1
    return first if first > start and last - first < MOVES_WHOLE else end


def sentences(slots: Slots, start: int, end: int) -> int:
    """After the last full stop, else as `clauses`."""
    found = _last(slots, start, end, {FULL_STOP})
    return clauses(slots, start, end) if found is None else found + 1


def clauses(slots: Slots, start: int, end: int) -> int:
    """After the last full stop, comma, semicolon or colon, else after the last word."""
    found = _last(slots, start, end, {FULL_STOP, COMMA, SEMICOLON, COLON})
    return word(slots, start, end) if found is None else found + 1


def phrase(slots: Slots, start: int, end: int) -> int:
    """Before the outermost weighted group that would be cut and fits a chunk, else as `word`."""
    return _phrases(slots, end - start)(slots, start, end)


POLICIES: Mapping[str, Policy] = {
    "hard": hard,
    "a1111": a1111,
    "word": word,
    "phrase": phrase,
    "comfy": comfy,
    "compel-sentences": sentences,
    "compel-phrases": clauses,
}


def _policy(chunking: str, slots: Slots, size: int) -> Policy:
    """A policy for chunks of a size."""
    if chunking == "phrase":
        return _phrases(slots, size)
    return partial(a1111, size=size) if chunking == "a1111" else POLICIES[chunking]


def _phrases(slots: Slots, size: int) -> Policy:
    """`phrase` with the extent of every group at hand: a group may hold others, so that its ends are looked up."""
    extents: dict[int, tuple[int, int]] = {}
    for at in range(len(slots)):
        if (group := slots[at].group) >= 0:
            extents[group] = (extents.get(group, (at, at))[0], at)

    def policy(slots: Slots, start: int, end: int) -> int:
        border = end
        for at in range(max(start + 1, end - size + 1), end):
            first, last = extents.get(slots[at].group, (at, at))
            if first == at and last >= end and last - first < size:
                border = first
                break
        return word(slots, start, border)

    return policy


def _last(slots: Slots, start: int, end: int, ids: set[int]) -> int | None:
    return next((at for at in range(end - 1, start - 1, -1) if slots[at].id in ids), None)


def _unit_start(slots: Slots, start: int, border: int) -> int:
    """The border, moved before the embedding that it would cut; `start` where that fills the whole chunk."""
    unit = slots[border].unit
    while border > start and unit >= 0 and slots[border - 1].unit == unit:
        border -= 1
    return border
