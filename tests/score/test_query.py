"""Search queries: texts and weights out of one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.score.expression import ExpressionError
from clipcond.score.query import QueryTerm, parse_query


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("cat", [("cat", 1)]),
        ("two red stars - blue", [("two red stars", 1), ("blue", -1)]),
        ("2:cat + dog - night", [("cat", 2), ("dog", 1), ("night", -1)]),
        ("  2.5: cat  -  .5:old photo.png ", [("cat", 2.5), ("old photo.png", -0.5)]),
        ("- night + day", [("night", -1), ("day", 1)]),
        ("black-and-white C++ book", [("black-and-white C++ book", 1)]),
        ("picture.png + dir/a+b.png", [("picture.png", 1), ("dir/a+b.png", 1)]),
        ("16:9 screen + 16: 9 screens", [("16:9 screen", 1), ("9 screens", 16)]),
        ("time 10:30", [("time 10:30", 1)]),
        ("猫 - 犬", [("猫", 1), ("犬", -1)]),
        ("a\n+\tb", [("a", 1), ("b", 1)]),
    ],
)
def test_terms_are_joined_by_signs_between_blanks(source: str, expected: list[tuple[str, float]]) -> None:
    terms = parse_query(source)
    assert [(term.text, term.weight) for term in terms] == expected
    assert all(source[term.start : term.end] == term.text for term in terms)


@pytest.mark.parametrize(
    ("source", "problem", "caret"),
    [
        ("", "a text is missing here", "^"),
        ("cat + ", "a text is missing here", "      ^"),
        ("cat + - dog", "a text is missing here", "      ^"),
        ("+ cat", "there is no text before \\+", "^"),
        ("0:cat", "the weight is 0; expected more than 0", "^^"),
        ("cat - 2:", "a text is missing here", "      ^^"),
        ("9" * 400 + ":cat", "the weight is inf; expected more than 0", "^" * 30),
    ],
)
def test_mistakes_say_what_and_where(source: str, problem: str, caret: str) -> None:
    with pytest.raises(ExpressionError, match=f"^{problem}") as caught:
        parse_query(source)
    assert str(caught.value).split("\n")[2] == f"  {caret}"


def read(source: str) -> tuple[QueryTerm, ...] | ExpressionError:
    try:
        return parse_query(source)
    except ExpressionError as error:
        return error


@given(st.text(alphabet="ab 2.:+-\n猫", max_size=25))
def test_any_text_is_read_or_refused_with_a_place_in_it(source: str) -> None:
    terms = read(source)
    if isinstance(terms, ExpressionError):
        assert 0 <= terms.start <= terms.end <= len(source)
        return
    assert all(term.text == term.text.strip() != "" for term in terms)
    assert all(source[term.start : term.end] == term.text for term in terms)
