"""Textual-inversion names in the words of a prompt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from clipcond.prompt.items import Embedding, Item, Words

_Names = tuple[tuple[str, int], ...]


def split_at_embeddings(words: Words, embeddings: Mapping[str, int]) -> tuple[Item, ...]:
    """Return the words with every embedding's name taken out: whole words, in any case, the longest name first."""
    if not embeddings:
        return (words,)
    return tuple(_split(words, *_pattern(tuple(embeddings.items()))))


def _split(words: Words, pattern: re.Pattern[str], known: Mapping[str, tuple[str, int]]) -> Iterator[Item]:
    behind = 0
    for match in pattern.finditer(words.text):
        name, vectors = known[match[0].lower()]
        if match.start() > behind:
            yield words_between(words, behind, match.start())
        start, end = words.places[match.start()], words.places[match.end()]
        yield Embedding(name=name, vectors=vectors, weight=words.weight, start=start, end=end, group=words.group)
        behind = match.end()
    if behind < len(words.text) or not words.text:
        yield words_between(words, behind, len(words.text)) if behind else words


def words_between(words: Words, first: int, last: int) -> Words:
    """Return the words of words.text[first:last]."""
    places = words.places[first : last + 1]
    return Words(
        text=words.text[first:last],
        weight=words.weight,
        start=places[0],
        end=places[-1],
        places=places,
        group=words.group,
        joins=words.joins,
    )


@lru_cache(maxsize=8)
def _pattern(names: _Names) -> tuple[re.Pattern[str], Mapping[str, tuple[str, int]]]:
    known = {name.lower(): (name, vectors) for name, vectors in names if name}
    longest_first = sorted(known, key=lambda name: (-len(name), name))
    choice = "|".join(re.escape(name) for name in longest_first) or r"(?!)"
    return re.compile(rf"(?<!\w)(?i:{choice})(?!\w)"), known
