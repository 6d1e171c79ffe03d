"""Language models as text encoders: the words that a pipeline puts around a prompt, and what it keeps of the result.

A pipeline of HunyuanVideo, Kandinsky 5 or 6 lays the prompt into a chat, encodes the whole, and cuts the positions of the
instruction off in front. A prompt that is too long loses its end; marks and weights of a dialect are words to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt.local_tokenizers import ADVICE, USUAL_LANGUAGE, cached, located
from clipcond.prompt.tokenizer import TokenRow, without_surrogates

if TYPE_CHECKING:
    from tokenizers import Tokenizer


_FOLDERS = ("", "tokenizer_4", "tokenizer")  # in a model of its own, in a pipeline of HiDream, and in others


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """The chat that a prompt is laid into.

    before, after: the words around the prompt.   crop: the positions that are cut off in front after encoding; None for as
    many as `before` has tokens.   special: the tokenizer adds its special tokens, such as a BOS.
    """

    before: str
    after: str
    crop: int | None
    special: bool = True


class LanguageTokenizer:
    """The tokens of a prompt within its chat, with offsets, by a tokenizer of the `tokenizers` library."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def rows(self, text: str, chat: Chat) -> list[tuple[int, TokenRow]]:
        """The tokens that hold a character of the prompt, as (position, (id, piece, start, end)).

        Positions count from the first that the pipeline keeps. A token that reaches into the chat's own words counts to
        the prompt, and its span ends with the prompt.
        """
        text = without_surrogates(text)
        first, end = len(chat.before), len(chat.before) + len(text)
        encoding = self._tokenizer.encode(chat.before + text + chat.after, add_special_tokens=chat.special)
        parts = zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        crop = chat.crop if chat.crop is not None else self._count(chat)
        return [
            (position - crop, (number, piece, max(start - first, 0), min(stop, end) - first))
            for position, (number, piece, (start, stop)) in enumerate(parts)
            if start < end and stop > first and stop > start
        ]

    def _count(self, chat: Chat) -> int:
        return len(self._tokenizer.encode(chat.before, add_special_tokens=chat.special).ids)


def from_backend(tokenizer: Tokenizer) -> LanguageTokenizer:
    """The tokenizer inside a loaded one of transformers, its `backend_tokenizer`, which is read and not changed."""
    return _read(tokenizer.to_str(), "the pipeline's tokenizer")


def find(
    named: LanguageTokenizer | str | Path | None, family: str, encoder: str
) -> tuple[LanguageTokenizer | None, str]:
    """The tokenizer of a family's language model, and the reason where there is none.

    named: a loaded one, a `tokenizer.json`, a folder that holds one, or a hub name that is in the local cache; None looks for
    the usual names there.   encoder: its name, for the reason. Raises what `load` raises.
    """
    if isinstance(named, LanguageTokenizer):
        return named, ""
    if named is not None:
        return load(named), ""
    for name in USUAL_LANGUAGE.get(family, ()):
        if (path := cached(name, _FOLDERS)) is not None:
            return load(path), ""
    return None, f"no tokenizer of {encoder} at hand; name {ADVICE}"


@lru_cache(maxsize=4)
def load(named: str | Path) -> LanguageTokenizer:
    """Read a `tokenizer.json`, or that of a folder of a tokenizer or a pipeline, or of a hub name in the local cache.

    Raises ResourceMissing where there is none, ConfigError for a file that is none.
    """
    path = located(named, _FOLDERS)
    if path is None:
        raise ResourceMissing(f"{named}: no tokenizer there; give {ADVICE}")
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ConfigError(f"{path} is no tokenizer.json: {error}") from error
    return _read(text, str(path))


@lru_cache(maxsize=4)
def _read(text: str, source: str) -> LanguageTokenizer:
    from tokenizers import Tokenizer

    try:
        document = json.loads(text)
        tokenizer = Tokenizer.from_str(json.dumps(document))
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{source} is no tokenizer.json: {type(error).__name__}: {reason}") from error
    if document["model"].get("end_of_word_suffix"):
        raise ConfigError(f"{source} is CLIP's tokenizer, not that of a language model; name {ADVICE}")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return LanguageTokenizer(tokenizer)


def places_in(prompt: str, words: str) -> list[int]:
    """Return where each character of what a prompt says without its marks stands in the prompt itself, from behind."""
    at, places = len(prompt), []
    for character in reversed(words):
        found = prompt.rfind(character, 0, at)
        at = found if found >= 0 else at
        places.append(min(at, max(len(prompt) - 1, 0)))
    return places[::-1]
