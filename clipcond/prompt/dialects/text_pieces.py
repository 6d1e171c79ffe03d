"""Text between marks: pieces that remember their places, and the words that they make."""

from __future__ import annotations

from dataclasses import dataclass, field

from clipcond.prompt.items import Words

Piece = tuple[int, int, int]  # prompt[start:end] is text that stands at `place`: (place, start, end)


def blanks_before(prompt: str, end: int, floor: int) -> int:
    """Return the start of the blanks directly before `end`, `floor` at least."""
    while end > floor and prompt[end - 1].isspace():
        end -= 1
    return end


def blanks_after(prompt: str, start: int, ceiling: int) -> int:
    """Return the end of the blanks at `start`, `ceiling` at most."""
    while start < ceiling and prompt[start].isspace():
        start += 1
    return start


def make_words(prompt: str, pieces: list[Piece], end: int, weight: float, group: int, *, joins: bool = False) -> Words:
    """Make Words of text pieces; `end` is the end of the last one in the prompt, marks of its own included."""
    if len(pieces) == 1:
        place, first, last = pieces[0]
        text, places = prompt[first:last], (*range(place, place + last - first), end)
    else:
        text = "".join([prompt[first:last] for _, first, last in pieces])
        found: list[int] = []
        for place, first, last in pieces:
            found.extend(range(place, place + last - first))
        places = (*found, end)
    start = pieces[0][0]
    return Words(text=text, weight=weight, start=start, end=end, places=places, group=group, joins=joins)


@dataclass(slots=True)
class TextBuffer:
    """The text since the last mark, and the pieces before it that belong to the same words."""

    pieces: list[Piece] = field(default_factory=list)
    since: int = 0  # text from here on has not been taken yet
    edge: int = 0  # a group's number is not looked for before this

    def take(self, end: int) -> None:
        """Take the text up to `end` as a piece."""
        if end > self.since:
            self.pieces.append((self.since, self.since, end))
            self.since = end

    def take_escaped(self, at: int) -> None:
        """Take the text up to the backslash at `at`, and the character behind it as text that stands there."""
        self.take(at)
        self.pieces.append((at, at + 1, at + 2))
        self.since = self.edge = at + 2

    def skip_to(self, at: int) -> None:
        """Go on at `at`, behind a mark."""
        self.since = self.edge = at

    def flush(self, end: int) -> list[Piece]:
        """Take the text up to `end` and return all pieces; none are left."""
        pieces = self.pieces
        if end > self.since:
            pieces.append((self.since, self.since, end))
            self.since = end
        if pieces:
            self.pieces = []
        return pieces
