"""From the items of a parsed prompt to the sections of one encoder: tokens with weights and spans, between hard borders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple, TypeVar

from clipcond.prompt.chunking import Slot
from clipcond.prompt.items import Adapter, Break, Compose, Embedding, Item, Schedule, Swap, Words
from clipcond.prompt.tokenizer import TokenRow, token_rows

SectionCut = Literal["end", "break"]
PADDING, PADDING_ID = "!", 0
_LONE_MARK = f"{PADDING}</w>"
PLACEHOLDER = 0  # the id in the place of an embedding's vector, as in A1111


class PlannedToken(NamedTuple):
    """A content token as `tokenizer.Token`, and the weight that its prompt gives it; 1.0 means untouched.

    vector: of an EmbeddingToken, which of the embedding's vectors, from 0.
    """

    id: int
    piece: str
    text: str
    start: int
    end: int
    weight: float = 1.0
    vector: int = 0


# `PlannedToken(…)` of many rows of its seven fields, without a call of Python for each
planned_tokens = partial(map, partial(tuple.__new__, PlannedToken))


class EmbeddingToken(PlannedToken):
    """The place of one vector of a textual inversion: `id` is a placeholder and `piece` the name."""

    __slots__ = ()


@dataclass(slots=True)
class Section:
    """The tokens between two borders that the prompt itself sets. `part` numbers what AND composes, from 0."""

    part: int = 0
    tokens: list[PlannedToken] = field(default_factory=list)
    marks: list[tuple[int, int, int]] = field(default_factory=list)  # segment, group, unit of each token
    cut: SectionCut = "end"


class SectionSlots:
    """The tokens of a section as chunking policies see them; made one by one, as most policies look at few."""

    def __init__(self, section: Section) -> None:
        self._tokens, self._marks = section.tokens, section.marks

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, at: int) -> Slot:
        token = self._tokens[at]
        return Slot(token.id, ends_word(token), *self._marks[at]) if self._marks else Slot(token.id, ends_word(token))


def ends_word(token: PlannedToken) -> bool:
    """True if a CLIP token is the last of its word."""
    return token.piece.endswith("</w>") or isinstance(token, EmbeddingToken)


def apart_rows(text: str) -> list[TokenRow]:
    """`token_rows` of a tokenizer that knows `!` as its padding token: each `!` is one, and ends the word before it."""
    found: list[TokenRow] = []
    added = 0  # blanks that were put in so far
    for number, piece, start, end in token_rows(text.replace(PADDING, f" {PADDING} ")):
        if piece == _LONE_MARK:
            found.append((PADDING_ID, piece, start - added - 1, end - added - 1))
            added += 2
        else:
            found.append((number, piece, start - added, end - added))
    return found


def sections(
    prompt: str,
    items: Sequence[Item],
    rows: Callable[[str], Sequence[TokenRow]],
    vectors: Mapping[str, int],
    *,
    breaks: bool = True,
) -> list[Section]:
    """The sections of one encoder, at least one; a BREAK at the very end opens none.

    rows: tokenises a text.   vectors: how many this encoder has for an embedding; a name without any is read as text.
    breaks: False where BREAK is no border (T5).
    """
    found = [Section()]
    composed = False
    for number, item in enumerate(flat(items)):
        section = found[-1]
        if isinstance(item, Words):
            _add_words(prompt, item, number, rows, section)
        elif isinstance(item, Embedding):
            if count := vectors.get(item.name, 0):
                text = prompt[item.start : item.end]
                section.tokens += [
                    EmbeddingToken(PLACEHOLDER, item.name, text, item.start, item.end, item.weight, vector)
                    for vector in range(count)
                ]
                section.marks += [(number, item.group, number)] * count
            else:
                _add_words(prompt, _as_words(prompt, item), number, rows, section)
        elif isinstance(item, Break) and breaks:
            section.cut = "break"
            found.append(Section(section.part))
        elif isinstance(item, Compose):
            if composed or section.tokens or len(found) > 1:  # the first one only opens the first part
                section.cut = "break"
                found.append(Section(section.part + 1))
            composed = True
    if len(found) > 1 and not found[-1].tokens and found[-1].part == found[-2].part:
        found.pop()
    return found


def flat(items: Sequence[Item]) -> Iterator[Words | Break | Compose | Embedding]:
    """The items, with what a schedule or a swap shows in its place and words that join made one; adapters are no text."""
    return joined(_leaves(items))


def _leaves(items: Sequence[Item]) -> Iterator[Words | Break | Compose | Embedding]:
    waiting = [iter(items)]
    while waiting:
        item = next(waiting[-1], None)
        if item is None:
            waiting.pop()
        elif isinstance(item, (Schedule, Swap)):
            waiting.append(iter(item.items))
        elif not isinstance(item, Adapter):
            yield item


def _add_words(
    prompt: str, words: Words, segment: int, rows: Callable[[str], Sequence[TokenRow]], section: Section
) -> None:
    places, text, weight = words.places, words.text, words.weight
    mark = (segment, words.group, -1)
    found = rows(text)
    section.marks += [mark] * len(found)
    if prompt.startswith(text, words.start) and places[-2:-1] == (
        words.start + len(text) - 1,
    ):  # nothing was taken out
        ahead = words.start
        section.tokens += planned_tokens(
            [
                (number, piece, text[first:last], ahead + first, ahead + last, weight, 0)
                for number, piece, first, last in found
            ]
        )
        return
    for number, piece, first, last in found:
        start, end = places[first], _end(prompt, text, places, last)
        section.tokens.append(PlannedToken(number, piece, prompt[start:end], start, end, weight))


def _end(prompt: str, text: str, places: Sequence[int], last: int) -> int:
    """The end of text[:last] in the prompt: behind its last character, and behind the backslash that escapes it."""
    at, following = places[last - 1], places[last]
    escaped = prompt[at] == "\\" and following >= at + 2 and prompt[at + 1 : at + 2] == text[last - 1]
    return at + 2 if escaped else at + 1


def _as_words(prompt: str, item: Embedding) -> Words:
    return Words(
        text=prompt[item.start : item.end],
        weight=item.weight,
        start=item.start,
        end=item.end,
        places=tuple(range(item.start, item.end + 1)),
        group=item.group,
    )


_Leaf = TypeVar("_Leaf", bound=Item)


def joined(items: Iterable[_Leaf]) -> Iterator[_Leaf | Words]:
    """Yield the items, with words that join made one: neighbours of equal weight with no blank between them.

    The one text has the places of all its characters, and the group of its parts where they share one.
    """
    run: list[Words] = []
    for item in items:
        if isinstance(item, Words) and item.joins:
            if run and not touching(run[-1], item):
                yield _one_text(run)
                run = []
            run.append(item)
            continue
        if run:
            yield _one_text(run)
            run = []
        yield item
    if run:
        yield _one_text(run)


def touching(before: Words, after: Words) -> bool:
    """Return True if the tokenizer reads both as one text, and no blank parts them anyway."""
    if not (before.joins and after.joins) or before.weight != after.weight or not before.text or not after.text:
        return False
    return not (before.text[-1].isspace() or after.text[0].isspace())


def _one_text(run: Sequence[Words]) -> Words:
    first, last = run[0], run[-1]
    if first is last:
        return first
    return Words(
        text="".join([words.text for words in run]),
        weight=first.weight,
        start=first.start,
        end=last.end,
        places=(*chain.from_iterable(words.places[:-1] for words in run), last.end),
        group=first.group if len({words.group for words in run}) == 1 else -1,
        joins=True,
    )
