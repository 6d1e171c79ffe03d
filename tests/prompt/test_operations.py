"""Operations on a conditioning as text: there and back, the two wordings of a slider, and what is told of other text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError
from clipcond.prompt.operations import Gain, Lerp, Operation, Pair, Slerp, Slider, Vary, parse_operation, slider

NUMBERS = st.floats(-10, 10, allow_nan=False)
WORDS = st.text(st.characters(exclude_characters="|=>", exclude_categories=("Cs",)), min_size=1, max_size=12).map(
    str.strip
)
TEXTS = WORDS.filter(bool)
PAIRS = st.builds(Pair, TEXTS, TEXTS, st.none() | TEXTS)
OPERATIONS = st.one_of(
    st.builds(Lerp, TEXTS, NUMBERS),
    st.builds(Slerp, TEXTS, NUMBERS, st.sampled_from(["empty", "zero"])),
    st.builds(Slider, st.lists(PAIRS, min_size=1, max_size=3).map(tuple), NUMBERS),
    st.builds(Vary, NUMBERS.map(abs), st.integers(0, 2**63 - 1)),
    st.builds(Gain, TEXTS, NUMBERS),
)


@given(OPERATIONS)
def test_what_is_written_is_read_back(operation: Operation) -> None:
    assert parse_operation(str(operation)) == operation


def test_texts() -> None:
    assert parse_operation("lerp 0.3: a (blue:1.2) circle: round") == Lerp("a (blue:1.2) circle: round", 0.3)
    assert parse_operation(" Slerp .5 about zero: b ") == Slerp("b", 0.5, "zero")
    assert parse_operation("slider -1: small -> large") == slider("small", "large", -1.0)
    assert parse_operation("slider 2: woman = young woman -> old woman | a -> b") == Slider(
        (Pair("young woman", "old woman", "woman"), Pair("a", "b")), 2.0
    )
    assert parse_operation("vary 0.1:") == Vary(0.1, 0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no operation"),
        ("lrep 0.3: a", "no operation"),
        ("lerp: a", "such as: lerp 0.3"),
        ("lerp much: a", "such as: lerp 0.3"),
        ("lerp 0.3", "such as: lerp 0.3"),
        ("lerp 0.3:", "words are expected"),
        ("lerp nan: a", "expected a number"),
        ("lerp 0.3 about zero: a", "such as: lerp"),
        ("slerp 0.3 about me: a", "expected empty or zero"),
        ("slider 0.5: small", "such as: slider"),
        ("slider 0.5: a -> b -> c", "such as: slider"),
        ("vary 0.1: x", "such as: vary"),
        ("vary -1: 0", "expected 0 or more"),
        ("vary 1: -2", "seed"),
        ("gain 1.2:", "words are expected"),
    ],
)
def test_other_text_is_told_in_one_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        parse_operation(text)
    assert "\n" not in str(caught.value)


def test_the_two_wordings_of_a_slider() -> None:
    assert slider("small", "large", 0).ends("a Small fox, smaller") == ("a small fox, smaller", "a large fox, smaller")
    assert slider("small", "large", 0).ends("a large fox") == ("a small fox", "a large fox")
    old = slider("a young woman", r"an \1 old woman", 0, at="a woman")
    assert old.ends("a woman in snow") == ("a young woman in snow", r"an \1 old woman in snow")
    both = Slider((Pair("small", "large"), Pair("red", "blue")), 0)
    assert both.ends("a small red fox") == ("a small red fox", "a large blue fox")
    with pytest.raises(ConfigError, match="holds neither end"):
        slider("small", "large", 0).ends("a fox")
    with pytest.raises(ConfigError, match="does not hold 'bird'"):
        slider("small", "large", 0, at="bird").ends("a small fox")
