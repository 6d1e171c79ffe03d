"""The origin of each character of a rewritten text: exact for what is known, conservative for what is not.

An *alignment* of a text `new` made from a text `old` is a tuple of half-open spans into `old`, one for each character
of `new`: never empty, inside `old`, and with starts and ends that never step back. A character that came out of
several, or out of a passage that was rewritten as a whole, points at all of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Span = tuple[int, int]
_MOST_PAIRS = 4_000_000  # beyond that many comparisons a rewritten passage is taken as a whole


def identity(length: int) -> tuple[Span, ...]:
    """The alignment of a text of `length` characters with itself."""
    return tuple((at, at + 1) for at in range(length))


def align(old: str, new: str) -> tuple[Span, ...]:
    """Align `new`, a rewritten form of `old`, with it.

    Words that both share are anchors; between them the characters are compared. Raises ValueError for text made from
    an empty `old`, since its spans could not be non-empty.
    """
    if old == new:
        return identity(len(old))
    if not old and new:
        raise ValueError("text that came from nothing has no place in it")
    spans: list[Span] = []
    for start, end, new_start, new_end in _by_word(old, new):
        spans += _by_character(old, new, start, end, new_start, new_end)
    return tuple(spans)


def through(inner: Sequence[Span], outer: Sequence[Span]) -> tuple[Span, ...]:
    """Spans into a text in the middle (`inner`), carried on through that text's own alignment (`outer`)."""
    return tuple((outer[start][0], outer[end - 1][1]) for start, end in inner)


def _pieces(text: str) -> list[str]:
    """The words of a text and the white space between them, each on its own; together they are the text."""
    pieces: list[str] = []
    for character in text:
        if pieces and character.isspace() == pieces[-1].isspace():
            pieces[-1] += character
        else:
            pieces.append(character)
    return pieces


def _blocks(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[bool, int, int, int, int]]:
    """(same, start, end, new start, new end) covering both in order; a single block where comparing costs too much."""
    if len(old) * len(new) > _MOST_PAIRS:
        return [(False, 0, len(old), 0, len(new))]
    from difflib import SequenceMatcher

    matcher: SequenceMatcher[Hashable] = SequenceMatcher(None, old, new, autojunk=False)
    return [(tag == "equal", *block) for tag, *block in matcher.get_opcodes()]  # type: ignore[misc]


def _by_word(old: str, new: str) -> list[tuple[int, int, int, int]]:
    """Blocks of characters, (start, end, new start, new end), cut at the words that both texts share."""
    old_pieces, new_pieces = _pieces(old), _pieces(new)
    old_at, new_at = _positions(old_pieces), _positions(new_pieces)
    return [(old_at[a], old_at[b], new_at[c], new_at[d]) for _, a, b, c, d in _blocks(old_pieces, new_pieces)]


def _positions(pieces: Sequence[str]) -> list[int]:
    positions = [0]
    for piece in pieces:
        positions.append(positions[-1] + len(piece))
    return positions


def _by_character(old: str, new: str, start: int, end: int, new_start: int, new_end: int) -> list[Span]:
    """The spans of new[new_start:new_end], which came from old[start:end].

    What is gone belongs to the character before it, or to the first one (`amp;` of `&amp;`), up to white space.
    """
    spans: list[Span] = []
    lead = 0
    for same, a, b, c, d in _blocks(old[start:end], new[new_start:new_end]):
        gone = old[start + a : start + b] if c == d else ""
        if gone and spans:
            first, last = spans[-1]
            spans[-1] = (first, last + len(gone.split(maxsplit=1)[0]) if not gone[0].isspace() else last)
        elif gone:
            lead = len(gone.rsplit(maxsplit=1)[-1]) if not gone[-1].isspace() else 0
        elif same or b - a == d - c:
            spans += [(start + at, start + at + 1) for at in range(a, b)]
        elif a == b:  # nothing was there: the character before it, or the first one
            place = max(start + a - 1, 0)
            spans += [(place, place + 1)] * (d - c)
        else:
            spans += [(start + a, start + b)] * (d - c)
    if lead and spans:
        spans[0] = (spans[0][0] - lead, spans[0][1])
    return spans
