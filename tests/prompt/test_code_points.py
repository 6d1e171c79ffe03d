"""No text of any code points, halves of surrogate pairs included, makes anything that reads prompts raise."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipcond.prompt.analysis.collection import survey
from clipcond.prompt.analysis.phrases import analyse
from clipcond.prompt.dialects.parse import detect
from clipcond.prompt.dialects.translate import translate
from clipcond.prompt.infotext import parse_infotext, recognise_infotext
from clipcond.prompt.plan import DIALECTS, plan
from clipcond.prompt.tokenizer import openai_clean, token_ids, tokenize

anything = st.text(st.characters() | st.sampled_from('()[]:|<>,!+-."\\ \n'), max_size=60)
halves = st.text(st.characters(categories=["Cs"]) | st.sampled_from("a (:1)"), max_size=20)


@pytest.mark.property
@given(anything | halves)
@example("\ud800")
@example("(\udfff:1.2)")
@example("\ud83d\ude00")
def test_nothing_that_reads_a_prompt_raises(text: str) -> None:
    detect(text)
    survey([text, text + text])
    parse_infotext(text)
    recognise_infotext(f"{text}\nSteps: 1, Sampler: {text}, Seed: 2")
    for dialect in DIALECTS:
        analyse(plan(text, dialect=dialect))
        for target in DIALECTS:
            translate(text, dialect, target).text.encode()


@pytest.mark.property
@given(anything | halves)
@example("é\ud800&amp;")
def test_both_normalisations_read_halves_of_surrogates_as_replacement_characters(text: str) -> None:
    whole = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
    assert token_ids(text) == [token.id for token in tokenize(text)] == token_ids(whole)
    openai_clean(text).encode()
    for token in tokenize(text, "openai"):
        assert text[token.start : token.end] == token.text != ""
