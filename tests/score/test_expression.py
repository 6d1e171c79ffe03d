"""Fused scores: what is read, what it gives, and where a mistake is."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipcond.errors import ConfigError, ShapeError
from clipcond.score.expression import ExpressionError, ScoreExpression, parse_expression
from clipcond.score.normalise import z_scores

PROMPTS = ["a", "a", "b", "b", "b"]
COLUMNS = {"clipscore": [0.7, 0.8, 0.1, 0.3, 0.2], "aesthetic": [5.0, 4.0, 6.5, 6.0, 5.0], "HPS v3": [3, 3, 1, 2, 9]}


def weights(source: str) -> dict[str, float]:
    return {term.column: term.weight for term in parse_expression(source).terms}


def read(source: str) -> ScoreExpression | ExpressionError:
    try:
        return parse_expression(source)
    except ExpressionError as error:
        return error


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("clipscore", {"clipscore": 1}),
        ("0.7*clipscore + 0.3*aesthetic", {"clipscore": 0.7, "aesthetic": 0.3}),
        ("0.7*clipscore+.3*aesthetic", {"clipscore": 0.7, "aesthetic": 0.3}),
        ("clipscore*2 - aesthetic", {"clipscore": 2, "aesthetic": -1}),
        ("-clipscore", {"clipscore": -1}),
        ("- -clipscore", {"clipscore": 1}),
        ("2*(a - 3*(b + c))", {"a": 2, "b": -6, "c": -6}),
        ("-(a - b)*2*0.5", {"a": -1, "b": 1}),
        ("(1 + 1)*a", {"a": 2}),
        ("a + b + a", {"a": 2, "b": 1}),
        ("1e-1*a - 2.*b", {"a": 0.1, "b": -2}),
        ("0.5*\"HPS v3\" + 'x-y' + `z`", {"HPS v3": 0.5, "x-y": 1, "z": 1}),
        ("schönheit + prob.z", {"schönheit": 1, "prob.z": 1}),
    ],
)
def test_sums_with_weights_are_read(source: str, expected: dict[str, float]) -> None:
    assert weights(source) == pytest.approx(expected)
    assert list(weights(source)) == list(expected)


@pytest.mark.parametrize(
    ("source", "problem", "caret"),
    [
        ("", "expected a column, a number or \\(", "^"),
        ("0.7*", "expected a column, a number or \\(", "    ^"),
        ("a b", "expected \\+, - or \\* before b", "  ^"),
        ("a + (b", "this parenthesis is not closed", "    ^"),
        ("a + b)", "expected \\+, - or \\* before \\)", "     ^"),
        ("a / b", "/ is not understood here", "  ^"),
        ("0.7clipscore", "0 is not understood here", "^"),
        ("1.2.3*a", "1 is not understood here", "^"),
        ("a * b", "two columns cannot be multiplied; a column takes a number", "  ^"),
        ("a + 0.5", "a number is added alone, which changes no order", "    ^^^"),
        ("0.5 + a", "a number is added alone, which changes no order", "^^^"),
        ("0.5", "no column is named; write one as in", "^^^"),
        ("b + a - a", "a weighs 0 in all; leave it out", "    ^"),
        ("0*a", "a weighs 0 in all; leave it out", "  ^"),
        ("1e999*a", "a weighs inf in all", "      ^"),
        ("写真 + \x1b[31m", "␛ is not understood here", "       ^"),
        ('"open + a', '" is not understood here', "^"),
        ("__import__('os').system('x')", ". is not understood here", " " * 16 + "^"),
        ("exec(a)", "expected \\+, - or \\* before \\(", "    ^"),
    ],
)
def test_mistakes_say_what_and_where(source: str, problem: str, caret: str) -> None:
    with pytest.raises(ExpressionError, match=f"^{problem}") as caught:
        parse_expression(source)
    lines = str(caught.value).split("\n")
    assert len(lines) == 3
    assert lines[2] == f"  {caret}"
    assert "\x1b" not in str(caught.value)


def test_the_nearest_column_is_named_at_its_place() -> None:
    expression = parse_expression("0.7*clipscor + 0.3*aesthetic")
    with pytest.raises(ExpressionError, match=r"^no column clipscor; did you mean clipscore\?") as caught:
        expression.evaluate(COLUMNS, PROMPTS)
    assert str(caught.value).split("\n")[2] == "  " + " " * 4 + "^" * 8
    with pytest.raises(ExpressionError, match="no column qqq; expected one of HPS v3, aesthetic, clipscore"):
        parse_expression("qqq").check(COLUMNS)


def test_a_long_source_is_shown_around_the_mistake_alone() -> None:
    source = " + ".join(f"column{number}" for number in range(100)) + " / 2"
    with pytest.raises(ExpressionError, match="/ is not understood") as caught:
        parse_expression(source)
    assert max(map(len, str(caught.value).split("\n"))) < 80


@pytest.mark.parametrize("source", ["(" * 60 + "a" + ")" * 60, "(" * 1900])
def test_depth_is_bounded(source: str) -> None:
    with pytest.raises(ExpressionError, match="more than 50 parentheses lie in one another"):
        parse_expression(source)


def test_length_is_bounded_and_many_signs_are_no_depth() -> None:
    with pytest.raises(ConfigError, match="the score expression has 3001 characters; expected 2000 at most"):
        parse_expression("-" * 3000 + "a")
    assert weights("-" * 1901 + "a") == {"a": -1}


def test_columns_are_summed_as_z_scores_within_the_prompt() -> None:
    fused = parse_expression('0.7*clipscore - 0.3*aesthetic + 2*"HPS v3"').evaluate(COLUMNS, PROMPTS)
    z = {name: z_scores(column, PROMPTS) for name, column in COLUMNS.items()}
    assert fused == pytest.approx(0.7 * z["clipscore"] - 0.3 * z["aesthetic"] + 2 * z["HPS v3"])
    assert fused[:2] == pytest.approx([-1.0, 1.0])  # two pictures: z is -1 and 1; a constant column adds nothing


def test_columns_of_another_length_or_with_nan_are_refused_by_name() -> None:
    expression = parse_expression("clipscore")
    with pytest.raises(ShapeError, match=r"clipscore: the shape is \(1,\); expected \(2,\)"):
        expression.evaluate({"clipscore": [1.0]}, ["a", "a"])
    with pytest.raises(ConfigError, match="clipscore: number 2 of 2 is nan"):
        expression.evaluate({"clipscore": [1.0, float("nan")]}, ["a", "a"])


@given(
    st.lists(st.tuples(st.integers(-9, 9).filter(bool), st.sampled_from("abc")), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
)
def test_neither_the_order_of_rows_nor_the_scale_of_columns_matters(
    terms: list[tuple[int, str]], shuffled: random.Random
) -> None:
    noise = np.random.default_rng(0)
    columns = {name: noise.normal(size=8) for name in "abc"}
    source = " + ".join(f"{weight}*{name}" for weight, name in terms)
    expression = read(source)
    if isinstance(expression, ExpressionError):
        assert "weighs 0 in all" in str(expression)
        return
    prompts = list("ppqqpqpq")
    order = list(range(8))
    shuffled.shuffle(order)
    straight = expression.evaluate(columns, prompts)
    moved = {name: column[order] for name, column in columns.items()}
    assert expression.evaluate(moved, [prompts[i] for i in order]).tolist() == straight[order].tolist()
    scaled = {name: 100 * column + 7 for name, column in columns.items()}
    assert expression.evaluate(scaled, prompts) == pytest.approx(straight, abs=1e-9)


@given(st.text(alphabet="ab01.*+-() \"'`xé√\n", max_size=30))
def test_any_text_is_read_or_refused_with_a_place_in_it(source: str) -> None:
    expression = read(source)
    if isinstance(expression, ExpressionError):
        assert 0 <= expression.start <= expression.end <= len(source)
        return
    assert expression.terms
    assert all(source[term.start : term.end].strip("\"'`") == term.column for term in expression.terms)
