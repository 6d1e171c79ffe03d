"""Words of a prompt that an encoder never learned: their rows of the token table are zero."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from clipcond.prompt.layout import EmbeddingToken

if TYPE_CHECKING:
    from clipcond.prompt.layout import PlannedToken

_END_OF_WORD = "</w>"
_NAMED = 8  # words that a message names


class TokenRows(Protocol):
    """The token table of a text tower, in memory or in a file."""

    def untrained(self, ids: Iterable[int]) -> frozenset[int]:
        """Return those of some token ids whose rows are zero."""


def unseen_words(tower: TokenRows, tokens: Sequence[PlannedToken]) -> tuple[str, ...]:
    """Return the words, each once and in their order, with a token that the tower never learned.

    tokens: content tokens of a plan; textual inversions bring rows of their own and are left out.
    """
    words = [word for word in _words(tokens) if any(map(str.isalnum, "".join(token.text for token in word)))]
    unknown = tower.untrained({token.id for word in words for token in word})
    found = (word for word in words if any(token.id in unknown for token in word))
    return tuple(dict.fromkeys("".join(token.text for token in word).lower() for word in found))


def tell_unseen(words: Sequence[str], model: str, instead: str = "") -> str:
    """Say which words a model has never seen; empty for none. instead: the option that names another model that is here."""
    if not words:
        return ""
    named = ", ".join(words[:_NAMED]) + (f" and {len(words) - _NAMED:,} more" if len(words) > _NAMED else "")
    other = f"; in your cache lies a pretrained model, {instead}" if instead else ""
    return f"{model} has never seen {'the word' if len(words) == 1 else 'the words'} {named}; it reads nothing there{other}"


def _words(tokens: Iterable[PlannedToken]) -> Iterator[list[PlannedToken]]:
    word: list[PlannedToken] = []
    for token in tokens:
        if isinstance(token, EmbeddingToken):
            continue
        word.append(token)
        if token.piece.endswith(_END_OF_WORD):
            yield word
            word = []
    if word:
        yield word
