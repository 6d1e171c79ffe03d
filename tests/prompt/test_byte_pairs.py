"""One ASCII word at a time, against the `tokenizers` library with CLIP's whole model."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.prompt import byte_pairs, tokenizer

PRINTABLE = "".join(sorted(set(string.printable.lower()) - set(string.whitespace)))


def by_library(text: str) -> list[tuple[int, str, int, int]]:
    found = tokenizer._with_model(tokenizer._transformers).encode(text, add_special_tokens=False)
    return [(number, piece, *span) for number, piece, span in zip(found.ids, found.tokens, found.offsets, strict=True)]


@pytest.mark.property
@given(st.text(PRINTABLE, max_size=40))
def test_any_printable_ascii_is_read_as_the_library_reads_it(text: str) -> None:
    assert list(byte_pairs.rows(text)) == by_library(text)


@pytest.mark.parametrize(
    "text", ["a" * 300, "!" * 77, "don't's'", "</w>", "a</w>b", "1girl", "x9", "(masterpiece:1.2)"]
)
def test_what_is_easily_read_otherwise(text: str) -> None:
    assert list(byte_pairs.rows(text)) == by_library(text)


def test_every_whole_word_of_the_vocabulary() -> None:
    made = [first + second for first, second in tokenizer.merges()]
    words = [word.removesuffix("</w>") for word in made if word.isascii() and word.endswith("</w>")]
    assert len(words) > 30_000
    for word in words[::7]:
        assert list(byte_pairs.rows(word)) == by_library(word)


def test_the_shipped_file_is_what_the_vocabulary_gives() -> None:
    shipped = Path(byte_pairs.__file__).with_name(byte_pairs.FILE).read_bytes()
    assert byte_pairs.packed(tokenizer.merges()) == shipped  # else: python recipes/vocabulary/merges.py
