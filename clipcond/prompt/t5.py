"""T5's own tokenizer, read from its `tokenizer.json`, which is looked for on this machine only."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipcond.errors import ConfigError, ResourceMissing
from clipcond.prompt.local_tokenizers import ADVICE, USUAL_T5, cached, located
from clipcond.prompt.tokenizer import TokenRow, without_surrogates

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL = re.compile(r"<pad>|</s>|<unk>|<extra_id_\d+>")
# in a pipeline of SD3 and HiDream, of Flux, in a model of its own, and in a pipeline of T5 alone
_FOLDERS = ("tokenizer_3", "tokenizer_2", "", "tokenizer")


class T5Tokenizer:
    """Content tokens with offsets. A special token that a user types (`</s>`) is ordinary text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @classmethod
    def from_backend(cls, tokenizer: Tokenizer) -> T5Tokenizer:
        """The tokenizer inside a loaded one of transformers, its `backend_tokenizer`, which is read and not changed.

        Raises ConfigError for one that is not T5's.
        """
        return _read(tokenizer.to_str(), "the pipeline's tokenizer")

    def rows(self, text: str) -> list[TokenRow]:
        """The content tokens of a text as (id, piece, start, end); no EOS, nothing cut off, no empty span."""
        encoding = self._tokenizer.encode(without_surrogates(text), add_special_tokens=False)
        parts = zip(encoding.ids, encoding.tokens, encoding.offsets, strict=True)
        return [(number, piece, *_trimmed(text, *span)) for number, piece, span in parts]


def find(named: T5Tokenizer | str | Path | None, family: str) -> tuple[T5Tokenizer | None, str]:
    """The T5 tokenizer of a family, and the reason where there is none.

    named: a loaded one, a `tokenizer.json`, a folder that holds one (a pipeline's folder as well), or a hub name that
    the local cache holds; None looks for the usual names there. Nothing is downloaded. Raises ResourceMissing where
    something was named and is not there, ConfigError for a file that is no tokenizer.
    """
    if isinstance(named, T5Tokenizer):
        return named, ""
    if named is not None:
        return load(locate(named)), ""
    for name in USUAL_T5.get(family, ()):
        if (path := cached(name, _FOLDERS)) is not None:
            return load(path), ""
    return None, f"no T5 tokenizer at hand; name {ADVICE}"


def locate(named: str | Path) -> Path:
    """The `tokenizer.json` that a path or a hub name means. Raises ResourceMissing."""
    found = located(named, _FOLDERS)
    if found is None:
        raise ResourceMissing(f"{named}: no T5 tokenizer there; give {ADVICE}")
    return found


@lru_cache(maxsize=4)
def load(path: Path) -> T5Tokenizer:
    """Read a `tokenizer.json`. Raises ConfigError for a file that is none, or whose EOS is not T5's."""
    try:
        text = path.read_text(encoding="utf-8")
    except ValueError as error:
        raise ConfigError(f"{path} is not the tokenizer.json of T5: {error}") from error
    return _read(text, str(path))


@lru_cache(maxsize=4)
def _read(text: str, source: str) -> T5Tokenizer:
    """The tokenizer that a document describes."""
    from tokenizers import Tokenizer

    try:
        document = json.loads(text)
        entries = document["model"]["vocab"]
        special = [entries[0][0], entries[1][0]]
        for entry in entries:  # a name that cannot be typed: T5's normaliser takes NUL out
            if _SPECIAL.fullmatch(entry[0]):
                entry[0] = f"\0{entry[0]}"
        tokenizer = Tokenizer.from_str(json.dumps(document | {"added_tokens": [], "post_processor": None}))
    except Exception as error:  # the library raises bare Exceptions
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(f"{source} is not the tokenizer.json of T5: {type(error).__name__}: {reason}") from error
    if special != ["<pad>", "</s>"]:
        raise ConfigError(f"{source} is not the tokenizer.json of T5: expected <pad> with id 0 and </s> with id 1")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return T5Tokenizer(tokenizer)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without the white space before the word, which T5 counts in; a token of white space alone keeps it."""
    first = start
    while first < end and text[first].isspace():
        first += 1
    return (first, end) if first < end else (start, end)
