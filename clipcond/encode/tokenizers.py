"""The tokenizers of dual encoders behind one small interface: content tokens of a text, and what a limit leaves out."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from clipcond.encode.text_layout import TextLayout
from clipcond.errors import ModelError
from clipcond.prompt.tokenizer import BOS, EOS, batch_ids, tokenize

_PROBE = "a photo of a cat"  # shows which special tokens a tokenizer puts around a text


_PUNCTUATION = str.maketrans("", "", string.punctuation)


def siglip_clean(text: str) -> str:
    """Lower case, no ASCII punctuation, single blanks: SigLIP's tokenizer in transformers, whose fast form may not do it."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


class ContentTokenizer(Protocol):
    """Texts to content tokens: no start, no end, no padding, nothing cut."""

    name: str

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The content ids of each text, all of them."""

    def beyond(self, text: str, limit: int) -> str:
        """The part of a text behind its first `limit` content tokens; empty where nothing is."""


class ClipTokenizer:
    """CLIP's own byte pairs, 49,408 of them, in the cleaning of OpenAI and open_clip, or in that of transformers."""

    def __init__(self, normalisation: Literal["openai", "transformers"]) -> None:
        self.normalisation = normalisation
        self.name = "CLIP's"

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The content ids of each text, all of them."""
        return batch_ids(texts, self.normalisation)

    def beyond(self, text: str, limit: int) -> str:
        """The part of a text behind its first `limit` content tokens; empty where nothing is."""
        tokens = tokenize(text, self.normalisation)
        return text[tokens[limit].start :].strip() if len(tokens) > limit else ""


class LibraryTokenizer:
    """A tokenizer of transformers.

    clean: what the model does to a text before.   replaced: ids that stand for others, as CLIPA's padding for the
    separator.   Special tokens that are typed in a text are text: a space goes behind their first character.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        clean: Callable[[str], str] = str,
        replaced: dict[int, int] | None = None,
    ) -> None:
        self.tokenizer, self._clean, self.replaced = tokenizer, clean, replaced or {}
        self.name = type(tokenizer).__name__
        special = sorted({str(token) for token in tokenizer.all_special_tokens if len(str(token)) > 1}, key=len)
        self._special = re.compile("|".join(map(re.escape, reversed(special))) or r"(?!)")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The content ids of each text, all of them."""
        return self._encoded(list(texts), add_special_tokens=False)

    def beyond(self, text: str, limit: int) -> str:
        """The part of a text behind its first `limit` content tokens, cleaned as the model does; empty where nothing is."""
        clean = self._cleaned(text)
        if not self.tokenizer.is_fast:
            (ids,) = self.ids([text])
            return str(self.tokenizer.decode(ids[limit:])).strip()
        spans = self.tokenizer(clean, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        offsets = spans["offset_mapping"]
        return clean[offsets[limit][0] :].strip() if len(offsets) > limit else ""

    def around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the special ids that the tokenizer puts before and behind a text. Raises ModelError if it cannot be told."""
        (bare,), (whole,) = self.ids([_PROBE]), self._encoded([_PROBE], add_special_tokens=True)
        for at in range(len(whole) - len(bare) + 1):
            if bare and whole[at : at + len(bare)] == bare:
                return tuple(whole[:at]), tuple(whole[at + len(bare) :])
        raise ModelError(
            f"the tokenizer ({self.name}) does not frame a text with special tokens; expected one that does"
        )

    def _cleaned(self, text: str) -> str:
        return self._special.sub(lambda typed: f"{typed[0][0]} {typed[0][1:]}", self._clean(text))

    def _encoded(self, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
        found = self.tokenizer(
            [self._cleaned(text) for text in texts],
            add_special_tokens=add_special_tokens,
            padding=False,
            truncation=False,
            verbose=False,
        )["input_ids"]
        return [[self.replaced.get(int(token), int(token)) for token in row] for row in found]


def clip_layout(length: int) -> TextLayout:
    """The layout of a causal CLIP text encoder, whose rows may be cut behind the end of text."""
    return TextLayout(length=length, before=(BOS,), after=(EOS,), pad=EOS, padded="longest")


def library_layout(tokenizer: LibraryTokenizer, length: int, *, masked: bool, last: tuple[int, ...] = ()) -> TextLayout:
    """The layout that a tokenizer of transformers states. masked: the encoder does not see padding."""
    before, after = tokenizer.around()
    theirs = tokenizer.tokenizer
    pad = theirs.pad_token_id
    if pad is None and not masked:
        raise ModelError(f"the tokenizer ({tokenizer.name}) names no padding, which this text encoder sees")
    return TextLayout(
        length=length,
        before=before,
        after=after,
        pad=int(pad or 0),
        padded="longest" if masked else "length",
        side="left" if theirs.padding_side == "left" else "right",
        last=last,
    )
